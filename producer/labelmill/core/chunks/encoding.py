"""A chunk before it is written: its rows as they were cut from the input, then encoded as they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import cast

import numpy as np
import orjson
from numpy.typing import NDArray

from labelmill.contracts.errors import InvalidInput
from labelmill.core.chunks.codec import encode_chunk

Ids = Sequence[str | None] | None


class ContentDigest:
    """A fingerprint of rows in order; how they are divided into blocks does not matter."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    number: int
    first_row: int
    rows: int
    repeats: NDArray[np.int64]  #: The rows that repeat an earlier text.
    firsts: NDArray[np.int64]  #: For each of them the first row with that text.
    names: list[str] | list[None]  #: For each of them its id; None: the row's number.
    duplicates_so_far: int  #: Including this chunk's.


@dataclass(frozen=True, slots=True, kw_only=True)
class CutChunk(_Chunk):
    """A chunk's rows as JSON: a third of the memory of Python strings, and the encoding thread can process it without
    holding the interpreter lock, which the reading thread needs."""

    texts: bytes
    ids: bytes  #: An id for every row, "" where it has none; null: no column of ids, their numbers are their ids.
    given_ids: bytes | None  #: As they came, with null for a row without one; None: no column of ids.

    @classmethod
    def of(
        cls, number: int, first_row: int, texts: Sequence[str], ids: Ids, firsts: NDArray[np.int64], duplicates: int
    ) -> CutChunk:
        """`firsts`: for each row the earlier row with the same text, or -1. `duplicates`: of the chunks before.

        Raises InvalidInput for a text that cannot be kept.
        """
        try:
            texts_json, given_ids = orjson.dumps(texts), orjson.dumps(ids)
        except TypeError as error:
            rows = f"{first_row} to {first_row + len(texts) - 1}"
            raise InvalidInput(f"a text among rows {rows} is not valid Unicode") from error
        named = _named(ids)
        indices = (firsts >= 0).nonzero()[0]
        return cls(
            number=number,
            first_row=first_row,
            rows=len(texts),
            texts=texts_json,
            ids=given_ids if named is ids else orjson.dumps(named),
            given_ids=None if ids is None else given_ids,
            repeats=first_row + indices,
            firsts=firsts[indices],
            names=[named[index] for index in indices.tolist()] if named else [None] * len(indices),
            duplicates_so_far=duplicates + len(indices),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedChunk(_Chunk):
    """A chunk as it is stored: a fifth of the memory of its rows."""

    data: bytes


class ChunkEncoder:
    """Encodes a batch's chunks in order, and computes the fingerprint of all their rows if it is requested."""

    def __init__(self, *, fingerprint: bool) -> None:
        self._digest = ContentDigest() if fingerprint else None

    def hexdigest(self) -> str | None:
        """The fingerprint of all rows so far."""
        return None if self._digest is None else self._digest.hexdigest()

    def encode(self, chunk: CutChunk) -> EncodedChunk:
        """The next chunk."""
        if self._digest is not None:
            self._digest.add_json(chunk.texts, chunk.given_ids)
        indices = (chunk.repeats - chunk.first_row).tolist()
        data = encode_chunk(chunk.texts, chunk.ids, dict(zip(indices, chunk.firsts.tolist(), strict=True)))
        return EncodedChunk(data=data, **{field.name: getattr(chunk, field.name) for field in fields(_Chunk)})


def _named(ids: Ids) -> Sequence[str] | None:
    """Ids as they are stored, with "" for a row without one: its number cannot serve, because it may be the id of
    another row."""
    if ids is None or None not in ids:
        return cast("Sequence[str] | None", ids)
    return [row_id or "" for row_id in ids]
