"""The stored format of a chunk's input: JSON compressed with zstd, all rows in order, some 20 bytes a short text.

Rows that repeat an earlier text are included, so that results with texts can be read in input order from it alone; the
worker skips them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson
import zstandard

_UNREADABLE = "a chunk's input is unreadable"
_LEVEL = 1  # 3 makes it a twentieth smaller and takes a third longer


@dataclass(frozen=True, slots=True)
class QuotedInput:
    """The rows of a chunk, in order: the contents of JSON strings, without their quotes."""

    texts: Sequence[bytes]
    ids: Sequence[bytes] | None  #: None where ids are the row numbers.
    has_repeats: bool


@dataclass(frozen=True, slots=True)
class ChunkInput:
    """The rows of a chunk, in order. `ids` is None where ids are the row numbers; `repeats` maps an index within the
    chunk to the row that has the same text."""

    texts: Sequence[str]
    ids: Sequence[str] | None
    repeats: dict[int, int]


def encode_chunk(texts: bytes, ids: bytes, repeats: Mapping[int, int]) -> bytes:
    """Compress a chunk's input; texts and ids are lists in JSON already."""
    document = b'{"texts":%b,"ids":%b,"repeats":%b}' % (texts, ids, orjson.dumps(list(repeats.items())))
    return zstandard.ZstdCompressor(level=_LEVEL).compress(document)


def decode_chunk(data: bytes) -> ChunkInput:
    """The reverse of `encode_chunk`. Raises ValueError for anything else."""
    try:
        document = orjson.loads(zstandard.ZstdDecompressor().decompress(data))
        return ChunkInput(document["texts"], document["ids"], dict(document["repeats"]))
    except (zstandard.ZstdError, KeyError, TypeError) as error:
        raise ValueError(_UNREADABLE) from error


def decode_quoted(data: bytes) -> QuotedInput:
    """As `decode_chunk`, for callers that write JSON: the texts stay JSON-escaped. Raises ValueError."""
    try:
        document = zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise ValueError(_UNREADABLE) from error
    # within a JSON string every quote has a backslash before it: these separators cannot be inside one
    texts, has_ids, ids_and_repeats = document.removeprefix(b'{"texts":').partition(b',"ids":')
    ids, has_end, repeats = ids_and_repeats.rpartition(b',"repeats":')
    if not (has_ids and has_end):
        raise ValueError(_UNREADABLE)
    return QuotedInput(_quoted(texts), None if ids == b"null" else _quoted(ids), repeats != b"[]}")


def encode_repeats(rows: Sequence[int], counts: Sequence[int]) -> bytes:
    """Compress how many later rows repeat each of a chunk's `rows`."""
    return zstandard.ZstdCompressor(level=_LEVEL).compress(orjson.dumps([rows, counts]))


def decode_repeats(data: bytes) -> dict[int, int]:
    """The reverse: row → later rows that have its text. Raises ValueError for anything else."""
    try:
        rows, counts = orjson.loads(zstandard.ZstdDecompressor().decompress(data))
        return dict(zip(rows, counts, strict=True))
    except (zstandard.ZstdError, TypeError) as error:
        raise ValueError("how often a chunk's rows are repeated is unreadable") from error


def _quoted(listed: bytes) -> list[bytes]:
    if b'\\","' in listed:
        # the separator occurs inside a text, or a text ends with a backslash: only a parser finds where texts end
        return [orjson.dumps(text)[1:-1] for text in orjson.loads(listed)]
    return [] if listed == b"[]" else listed[2:-2].split(b'","')
