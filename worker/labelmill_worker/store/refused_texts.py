"""Texts that Mistral refused for what they are, as earlier batches have recorded it: asked again, it would refuse them
again."""

from __future__ import annotations

from sqlalchemy import and_, select
from sqlalchemy.engine import Connection

from labelmill.contracts.errors import RequestRefused
from labelmill.contracts.text_digests import digest_of
from labelmill.core.chunks.codec import decode_chunk
from labelmill.core.database.tables import BatchRow, ChunkInputRow, ChunkRow, RowErrorRow

_AT_MOST = 10_000  #: Texts: the latest that were refused.


def refused_texts(connection: Connection, model_no: int) -> dict[bytes, str]:
    """Digest of the text → why, of a model's texts that were refused in batches that are still there."""
    rows = connection.execute(
        select(RowErrorRow.batch_no, RowErrorRow.row, RowErrorRow.message, ChunkRow.number, ChunkRow.first_row)
        .join(BatchRow, BatchRow.no == RowErrorRow.batch_no)
        .join(
            ChunkRow,
            and_(
                ChunkRow.batch_no == RowErrorRow.batch_no,
                ChunkRow.first_row <= RowErrorRow.row,
                ChunkRow.first_row + ChunkRow.rows > RowErrorRow.row,
            ),
        )
        .where(BatchRow.model_no == model_no, RowErrorRow.code == RequestRefused.code)
        .order_by(RowErrorRow.batch_no.desc(), RowErrorRow.row)
        .limit(_AT_MOST)
    ).all()
    found: dict[bytes, str] = {}
    chunk: tuple[int, int] | None = None
    texts: list[str] = []
    for row in rows:
        if chunk != (row.batch_no, row.number):
            chunk, texts = (row.batch_no, row.number), _texts(connection, row.batch_no, row.number)
        if texts:
            found.setdefault(digest_of(texts[row.row - row.first_row]), row.message)
    return found


def _texts(connection: Connection, batch_no: int, number: int) -> list[str]:
    data = connection.scalar(
        select(ChunkInputRow.data).where(ChunkInputRow.batch_no == batch_no, ChunkInputRow.number == number)
    )
    return [] if data is None else list(decode_chunk(data).texts)
