"""How a chunk's input is kept: zstd over JSON, all rows in order, some 20 bytes a short text.

Rows that repeat an earlier text are in it too, so that results can be read in input order with their texts without
looking anywhere else; the worker skips them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson
import zstandard

_LEVEL = 1  # 3 makes it a twentieth smaller and takes a third longer


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
        raise ValueError("a chunk's input is unreadable") from error
