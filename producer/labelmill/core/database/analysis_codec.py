"""How the data of a job's report is stored: one JSON document for each job, compressed with zstd."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import orjson
import zstandard
from numpy.typing import NDArray
from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Connection

from labelmill.core.database.tables import AnalysisRow

_LEVEL = 6


def save_analysis(connection: Connection, job_id: str, document: dict[str, Any]) -> None:
    """Store a job's document, replacing an earlier one."""
    data = zstandard.ZstdCompressor(level=_LEVEL).compress(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))
    connection.execute(delete(AnalysisRow).where(AnalysisRow.job_id == job_id))
    connection.execute(insert(AnalysisRow).values(job_id=job_id, data=data))


def load_analysis(connection: Connection, job_id: str) -> dict[str, Any]:
    """A job's document; empty when it has none."""
    data = connection.scalar(select(AnalysisRow.data).where(AnalysisRow.job_id == job_id))
    if data is None:
        return {}
    document: dict[str, Any] = orjson.loads(zstandard.ZstdDecompressor().decompress(data))
    return document


def pack_bits(values: NDArray[np.bool_]) -> str:
    """A bit a row, as text."""
    return base64.b64encode(np.packbits(values).tobytes()).decode()


def unpack_bits(text: str, count: int) -> NDArray[np.bool_]:
    """The reverse of `pack_bits`."""
    packed = np.frombuffer(base64.b64decode(text), np.uint8)
    return np.unpackbits(packed, count=count).astype(bool)
