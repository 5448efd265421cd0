"""A chunk on its way to SQL: its rows as they were cut from the input, then what is kept of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from labelmill.contracts.chunk_codec import encode_chunk
from labelmill.contracts.errors import InvalidInput

Ids = Sequence[str | None] | None


class ContentDigest:
    """A fingerprint of rows in order, however they come in blocks."""

    def __init__(self) -> None:
        self._texts = hashlib.blake2b(digest_size=16)
        self._ids = hashlib.blake2b(digest_size=16)

    def add(self, texts: Sequence[str], ids: Ids = None) -> None:
        """Take the next rows. Raises TypeError for a text that is not valid Unicode."""
        if texts:
            self.add_json(orjson.dumps(texts), None if ids is None else orjson.dumps(ids))

    def add_json(self, texts: bytes, ids: bytes | None) -> None:
        """The same, of lists that are JSON already and not empty."""
        for digest, listed in ((self._texts, texts), (self._ids, ids)):
            if listed is not None:
                digest.update(memoryview(listed)[1:-1])
                digest.update(b",")

    def hexdigest(self) -> str:
        """The fingerprint of all rows so far."""
        return hashlib.blake2b(self._texts.digest() + self._ids.digest(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class CutChunk:
    """A chunk's rows."""

    number: int
    first_row: int
    texts: list[str]
    ids: Ids
    firsts: NDArray[np.int64]  #: For each row the earlier row with the same text, or -1.
    duplicates_so_far: int  #: With this chunk's.


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """What is kept of a chunk: a fifth of the memory its rows took."""

    number: int
    first_row: int
    rows: int
    data: bytes
    repeats: NDArray[np.int64]  #: The rows that repeat an earlier text …
    firsts: NDArray[np.int64]  #: … that text's row …
    names: list[str] | list[None]  #: … and their ids; None: the row's number.
    duplicates_so_far: int


class ChunkEncoder:
    """Encodes a batch's chunks, one after the other, and knows the fingerprint of all their rows."""

    def __init__(self) -> None:
        self._digest = ContentDigest()

    def hexdigest(self) -> str:
        """The fingerprint of all rows so far."""
        return self._digest.hexdigest()

    def encode(self, chunk: CutChunk) -> EncodedChunk:
        """The next chunk. Raises InvalidInput for a text or an id that no database keeps."""
        try:
            texts, given_ids = orjson.dumps(chunk.texts), orjson.dumps(chunk.ids)
        except TypeError as error:
            rows = f"{chunk.first_row} to {chunk.first_row + len(chunk.texts) - 1}"
            raise InvalidInput(f"a text among rows {rows} is not valid Unicode") from error
        self._digest.add_json(texts, None if chunk.ids is None else given_ids)
        ids = _named(chunk)
        if ids and b"\\u0000" in given_ids:
            _refuse_nul(chunk)
        indices = (chunk.firsts >= 0).nonzero()[0]
        firsts, listed = chunk.firsts[indices], indices.tolist()
        ids_json = given_ids if ids == chunk.ids else orjson.dumps(ids)
        return EncodedChunk(
            number=chunk.number,
            first_row=chunk.first_row,
            rows=len(chunk.texts),
            data=encode_chunk(texts, ids_json, dict(zip(listed, firsts.tolist(), strict=True))),
            repeats=chunk.first_row + indices,
            firsts=firsts,
            names=[ids[index] for index in listed] if ids else [None] * len(listed),
            duplicates_so_far=chunk.duplicates_so_far,
        )


def _named(chunk: CutChunk) -> list[str] | None:
    """An id for every row, its number where it has none of its own; None: no row has one."""
    if chunk.ids is None or not any(chunk.ids):
        return None
    if None not in chunk.ids:
        return list(map(str, chunk.ids))
    return [str(row) if one is None else one for row, one in enumerate(chunk.ids, chunk.first_row)]


def _refuse_nul(chunk: CutChunk) -> None:
    for row, one in enumerate(chunk.ids or (), chunk.first_row):
        if one and "\x00" in one:
            raise InvalidInput(f"row {row}: its id holds a NUL character, which no database keeps")
