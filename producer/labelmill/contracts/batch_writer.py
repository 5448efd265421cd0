"""Writing a batch: rows stream in, compressed chunks go to SQL, duplicates are resolved on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError

from labelmill.contracts.bulk import bulk_insert
from labelmill.contracts.chunk_codec import ChunkInput, decode_chunk, encode_chunk
from labelmill.contracts.database import reading, writing
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.states import BatchState, ChunkState
from labelmill.contracts.tables import BatchRow, ChunkInputRow, ChunkRow, EventRow, utc_now

#: Distinct texts of a chunk at most. Large enough that a chunk's own statements cost little a row.
CHUNK_TEXTS = 5_000
#: The first chunks are smaller, so that a batch of a few thousand rows keeps a fleet busy: they grow by so much …
_GROWTH_TEXTS = 1_000
_GROWTH_EVERY = 4  #: … every fourth chunk.
CHUNK_CHARS = 4_000_000  #: A chunk of very long texts is closed earlier.
_CHUNKS_PER_COMMIT = 8
_CHUNK_ROWS = 4 * CHUNK_TEXTS  # repeated texts ride along, but not without bound


class ContentDigest:
    """A fingerprint of rows in order, however they come in blocks."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, rows: Sequence[tuple[str | None, str]]) -> None:
        """Take the next rows."""
        if rows:
            self._hash.update(orjson.dumps(rows)[1:-1] + b",")

    def hexdigest(self) -> str:
        """The fingerprint of all rows so far."""
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True)
class _Chunk:
    number: int
    first_row: int
    input: ChunkInput


class BatchWriter:
    """Writes the rows of one batch, chunk by chunk. Each `add` commits what it completed: memory stays flat.

    The same rows make the same chunks, so a submission that broke is resumed by writing it again: chunks that are
    there already are compared and skipped.

    """

    def __init__(self, engine: Engine, batch_no: int, batch_id: str, *, chunk_texts: int = CHUNK_TEXTS) -> None:
        self._engine = engine
        self._batch_no = batch_no
        self._batch_id = batch_id
        self._most_texts = chunk_texts
        from labelmill.contracts.distinct import DistinctTexts  # noqa: PLC0415 - NumPy, which other commands spare

        self._distinct = DistinctTexts()
        self._digest = ContentDigest()
        self._chunk = 0
        self._texts: list[str] = []
        self._ids: list[str | None] = []
        self._firsts: list[int] = []
        self._chars = 0  # of the texts that wait
        self._waiting: list[_Chunk] = []
        self.rows = 0
        self.duplicates = 0

    def add(self, rows: Sequence[tuple[str | None, str]]) -> None:
        """Take some thousand rows `(id or None, text)`. Raises InvalidInput, DatabaseUnavailable."""
        if not rows:
            return
        try:
            self._digest.add(rows)
        except TypeError as error:
            raise InvalidInput(
                f"a text among rows {self.rows} to {self.rows + len(self._texts) + len(rows) - 1} is not valid Unicode"
            ) from error
        texts = [text for _, text in rows]
        ids = [external_id for external_id, _ in rows]
        first_rows = self._distinct.first_rows(texts, self.rows + len(self._texts)).tolist()
        self._texts += texts
        self._ids += ids
        self._firsts += first_rows
        self._chars += sum(map(len, texts))
        while (len(self._texts) >= self._chunk_texts() or self._chars >= CHUNK_CHARS) and (size := self._next_size()):
            self._flush(size)

    def finish(self) -> None:
        """Write the rest and open the batch for work (`queued`)."""
        while self._texts:
            self._flush(self._next_size() or len(self._texts))
        self._commit()
        with writing(self._engine) as connection:
            done = connection.execute(
                update(BatchRow)
                .where(BatchRow.no == self._batch_no, BatchRow.state == BatchState.SUBMITTING.value)
                .values(
                    state=BatchState.QUEUED.value,
                    rows=self.rows,
                    duplicates=self.duplicates,
                    content_digest=self._digest.hexdigest(),
                )
            ).rowcount
            if done:
                event = {"job_id": self._batch_id, "at": utc_now(), "state": "queued", "message": f"{self.rows} rows"}
                connection.execute(insert(EventRow).values(**event))

    def _chunk_texts(self) -> int:
        """Distinct texts of the next chunk: of its number alone, so that a resumed submission cuts the same chunks."""
        return min(self._most_texts, _GROWTH_TEXTS * (1 + self._chunk // _GROWTH_EVERY))

    def _next_size(self) -> int:
        """How many of the waiting rows make the next chunk; 0: not yet enough."""
        most = self._chunk_texts()
        head = self._firsts[:most]
        if self._chars < CHUNK_CHARS and len(head) == most and max(head) < 0:
            return most  # the usual case: short texts, none of them repeated
        distinct = chars = 0
        for index, (text, first) in enumerate(zip(self._texts, self._firsts, strict=True)):
            distinct += first < 0
            chars += len(text)
            if distinct >= most or index + 1 >= _CHUNK_ROWS or chars >= CHUNK_CHARS:
                return index + 1
        return 0

    def _flush(self, size: int) -> None:
        texts, self._texts = self._texts[:size], self._texts[size:]
        ids, self._ids = self._ids[:size], self._ids[size:]
        firsts, self._firsts = self._firsts[:size], self._firsts[size:]
        self._chars -= sum(map(len, texts))
        repeats = {index: first for index, first in enumerate(firsts) if first >= 0}
        named = any(external_id is not None for external_id in ids)
        names = [self._name(external_id, index) for index, external_id in enumerate(ids)] if named else None
        self._waiting.append(_Chunk(self._chunk, self.rows, ChunkInput(texts, names, repeats)))
        self.rows += size
        self.duplicates += len(repeats)
        self._chunk += 1
        if len(self._waiting) >= _CHUNKS_PER_COMMIT or sum(map(len, texts)) >= CHUNK_CHARS:
            self._commit()

    def _commit(self) -> None:
        """Write the chunks that wait, in one transaction: a commit for each would cost more than all the rest."""
        waiting, self._waiting = self._waiting, []
        try:
            self._write(waiting)
        except IntegrityError:  # some are there already, from an attempt that broke
            for chunk in waiting:
                try:
                    self._write([chunk])
                except IntegrityError:
                    self._compare_with_written(chunk)

    def _write(self, chunks: Sequence[_Chunk]) -> None:
        with writing(self._engine) as connection:
            for chunk in chunks:
                self._write_chunk(connection, chunk)
            connection.execute(
                update(BatchRow).where(BatchRow.no == self._batch_no).values(rows=self.rows, duplicates=self.duplicates)
            )

    def _compare_with_written(self, chunk: _Chunk) -> None:
        """An earlier attempt wrote a chunk of this number: it must be the same one."""
        with reading(self._engine) as connection:
            written = connection.scalar(
                select(ChunkInputRow.data).where(
                    ChunkInputRow.batch_no == self._batch_no, ChunkInputRow.number == chunk.number
                )
            )
        if written is None or decode_chunk(written) != chunk.input:
            raise InvalidInput(
                f"rows from {chunk.first_row} on differ from what was submitted before as {self._batch_id}: "
                "an idempotency key stands for one content"
            )

    def _name(self, external_id: str | None, index: int) -> str:
        if external_id is None:
            return str(self.rows + index)
        if "\x00" in external_id:
            raise InvalidInput(f"row {self.rows + index}: its id holds a NUL character, which no database keeps")
        return external_id

    def _write_chunk(self, connection: Connection, chunk: _Chunk) -> None:
        held = chunk.input
        rows, texts = len(held.texts), len(held.texts) - len(held.repeats)
        key: dict[str, Any] = {"batch_no": self._batch_no, "number": chunk.number}
        # a chunk that only repeats earlier texts is answered by their answers
        state = ChunkState.PENDING if texts else ChunkState.DONE
        connection.execute(
            insert(ChunkRow).values(**key, state=state.value, first_row=chunk.first_row, rows=rows, texts=texts)
        )
        connection.execute(insert(ChunkInputRow).values(**key, data=encode_chunk(held)))
        if held.repeats:
            bulk_insert(
                connection,
                "duplicate_rows",
                ("batch_no", "row", "first_row", "external_id"),
                [
                    (self._batch_no, chunk.first_row + index, first, held.ids[index] if held.ids else None)
                    for index, first in held.repeats.items()
                ],
            )
