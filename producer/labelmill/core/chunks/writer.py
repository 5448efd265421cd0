"""Writing a batch: rows stream in, compressed chunks go to SQL, duplicates are resolved on the way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError

from labelmill.contracts.errors import DatabaseUnavailable, KeyTaken
from labelmill.contracts.states import BatchState, ChunkState
from labelmill.core.chunks.codec import decode_chunk, encode_repeats
from labelmill.core.chunks.sizes import CHUNK_TEXTS, ChunkSizes
from labelmill.core.database import reading, writing
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import BatchRow, ChunkInputRow, ChunkRepeatsRow, ChunkRow
from labelmill.core.jobs.transitions import move_job
from labelmill.core.money.token_counts import count_all

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelmill.core.chunks.encoding import EncodedChunk, Ids

CHUNK_CHARS = 4_000_000  #: A chunk of very long texts ends earlier.
_CHUNK_ROWS = 4 * CHUNK_TEXTS  # repeated texts are added beyond the distinct ones, up to this bound
_CUTS_AHEAD = 2  # chunks that wait for compression, which reduces them to a seventh
_CHUNKS_PER_COMMIT = 6
_SAMPLED = 16  #: Of so many texts one is looked at for the estimate of the tokens of all.
_COMMITS_AHEAD = 1  # groups of chunks that wait to be written while the next rows are read


def read_written(engine: Engine, batch_no: int) -> list[int]:
    """How many rows each chunk has that was written for a batch so far."""
    of_batch = select(ChunkRow.rows).where(ChunkRow.batch_no == batch_no).order_by(ChunkRow.number)
    with reading(engine) as connection:
        return list(connection.scalars(of_batch))


class BatchEnded(Exception):
    """The batch was cancelled, or failed, while its rows were written."""


class _NotSubmittingError(Exception):
    """The batch accepts no more rows: another submission of it was faster, or it has ended."""


class BatchWriter:
    """Writes the rows of one batch, chunk by chunk, from threads of its own while the next rows are read.

    The same rows make the same chunks, so an interrupted submission is resumed by writing it again: chunks that exist
    already are compared and skipped. Nothing is written into a batch that workers may already process. Use it as a
    context manager: leaving it ends the threads.

    `written`: the rows of each chunk that an earlier attempt wrote, perhaps an earlier Labelmill's: the same cuts are
    made again.
    `fingerprint`: store one of all rows, by which a second submission of the same rows is recognised.
    `guard` is called in every transaction, and raises when nothing more may be written.
    """

    def __init__(
        self,
        engine: Engine,
        batch_no: int,
        batch_id: str,
        *,
        sizes: ChunkSizes | None = None,
        fingerprint: bool = False,
        written: Sequence[int] = (),
        guard: Callable[[Connection], None] = lambda _: None,
    ) -> None:
        import numpy as np  # noqa: PLC0415 - takes a tenth of a second, and other commands do not need it

        from labelmill.core.chunks.distinct import DistinctTexts  # noqa: PLC0415 - as NumPy
        from labelmill.core.chunks.encoding import ChunkEncoder  # noqa: PLC0415 - as NumPy

        self._engine = engine
        self._batch_no = batch_no
        self._batch_id = batch_id
        self._sizes = sizes or ChunkSizes()
        self._sampled_texts = self._sampled_tokens = 0
        self._guard = guard
        self._written = written
        self._np = np
        self._distinct = DistinctTexts()
        self._encoder = ChunkEncoder(fingerprint=fingerprint)  # used in the encoding thread only, chunk after chunk
        self._first_rows: list[int] = []  # of the chunks so far
        self._repeated: list[NDArray[np.uint32]] = []  # for each repeat the row it repeats, in pieces
        self._texts: list[str] = []  # rows that wait until their chunk is full, with `_max_chars`, `_ids`, `_firsts`
        self._max_chars = 0  # an upper bound of their characters
        self._ids: list[str | None] | None = None
        self._firsts = np.empty(0, np.int64)
        # two threads: one compresses while the other waits for the database
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="batch-encoder")
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="batch-writer")
        self._unencoded: deque[Future[EncodedChunk]] = deque()
        self._waiting: list[Future[EncodedChunk]] = []
        self._commits: deque[Future[None]] = deque()
        self.rows = 0
        self.duplicates = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._encoding.shutdown(wait=True, cancel_futures=True)
        self._writing.shutdown(wait=True, cancel_futures=True)

    def add(self, texts: Sequence[str], ids: Ids = None, *, max_chars: int | None = None) -> None:
        """Add some thousand rows; without ids their numbers are used. Raises InvalidInput, DatabaseUnavailable.

        `max_chars`: an upper bound of the characters of all texts, where that is known without counting.
        """
        if not texts:
            return
        np = self._np
        chars = sum(map(len, texts)) if max_chars is None else max_chars
        self._add_ids(len(texts), ids)
        sample = texts[::_SAMPLED]
        self._sampled_texts += len(sample)
        self._sampled_tokens += count_all(sample)
        self._texts += texts
        self._max_chars += chars
        self._firsts = np.concatenate([self._firsts, self._distinct.first_rows(texts)])
        new = np.cumsum(self._firsts < 0)
        start = 0
        while (end := self._end_of_chunk(start, new)) <= len(self._texts):
            self._cut(start, end)
            start = end
        if start:
            self._drop(start)
            self._max_chars = chars  # rows of this block alone are left

    def finish(self) -> None:
        """Write the remaining rows and make the batch available to workers (`queued`).

        Raises KeyTaken where another submission of the batch, earlier or at the same time, wrote other rows or more;
        BatchEnded; DatabaseUnavailable, which names the batch if workers may have it nevertheless.
        """
        if self._texts:
            self._cut(0, len(self._texts))
            self._drop(len(self._texts))
        self._hand_over()
        while self._commits:
            self._commits.popleft().result()
        is_committing = False
        try:
            with writing(self._engine) as connection:
                self._guard(connection)
                self._open_for_workers(connection)
                is_committing = True
        except DatabaseUnavailable as error:
            if not (is_committing and self._was_committed(error)):
                raise

    def _open_for_workers(self, connection: Connection) -> None:
        opened = move_job(
            connection,
            self._batch_id,
            BatchState.QUEUED,
            message=f"{self.rows} rows",
            rows=self.rows,
            duplicates=self.duplicates,
            text_tokens=self.rows * self._sampled_tokens // max(1, self._sampled_texts),
            content_digest=self._encoder.hexdigest(),
        )
        if not opened:
            self._require_same_batch(connection)
            return
        # after the update: another submission that still writes waits for it, and then finds the batch queued
        self._refuse_further_chunks(connection)
        if repeats := self._repeats_of_chunks():
            connection.execute(insert(ChunkRepeatsRow), repeats)

    def _was_committed(self, error: DatabaseUnavailable) -> bool:
        """Whether the batch was queued by a commit whose answer was lost: it must not look refused, or it is submitted
        and paid for again."""
        try:
            with writing(self._engine) as connection:
                # waits where the server is still committing
                of_batch = select(BatchRow.state).where(BatchRow.no == self._batch_no).with_for_update()
                if connection.scalar(of_batch) == BatchState.SUBMITTING.value:
                    return False
                self._require_same_batch(connection)
        except DatabaseUnavailable:
            raise DatabaseUnavailable(
                f"{error.message}; {self._batch_id} may have been accepted: labelmill status {self._batch_id}"
            ) from error
        return True

    def _require_same_batch(self, connection: Connection) -> None:
        """Another submission queued the batch, or it has ended: its rows must be exactly those written here."""
        batch = connection.execute(
            select(BatchRow.state, BatchRow.content_digest, BatchRow.rows).where(BatchRow.no == self._batch_no)
        ).one()
        _require_opened(batch.state, batch.content_digest)
        if (batch.content_digest, batch.rows) != (self._encoder.hexdigest(), self.rows):
            raise self._other_content("other content")

    def _refuse_further_chunks(self, connection: Connection) -> None:
        """Raise KeyTaken if an earlier attempt wrote more rows than this submission has."""
        beyond_last = (ChunkRow.batch_no == self._batch_no) & (ChunkRow.number >= len(self._first_rows))
        further = connection.scalar(select(func.coalesce(func.sum(ChunkRow.rows), 0)).where(beyond_last))
        if further:
            raise self._other_content(f"{further} rows more")

    def _other_content(self, difference: str) -> KeyTaken:
        return KeyTaken(self._batch_id, difference)

    def _repeats_of_chunks(self) -> list[dict[str, Any]]:
        np = self._np
        if not self._repeated:
            return []
        rows, counts = np.unique(np.concatenate(self._repeated), return_counts=True)
        bounds = [*np.searchsorted(rows, self._first_rows).tolist(), rows.size]
        return [
            {
                "batch_no": self._batch_no,
                "number": number,
                "data": encode_repeats(rows[start:end].tolist(), counts[start:end].tolist()),
            }
            for number, (start, end) in enumerate(pairwise(bounds))
            if start < end
        ]

    def _add_ids(self, count: int, ids: Ids) -> None:
        if ids is None:
            if self._ids is not None:
                self._ids += [None] * count
            return
        if self._ids is None:
            self._ids = [None] * len(self._texts)
        self._ids += ids

    def _end_of_chunk(self, start: int, new: NDArray[np.int64]) -> int:
        """The end of the chunk that starts at a waiting row; beyond the last waiting row if there are too few.

        `new`: the number of distinct texts up to and including each waiting row. A chunk's size depends only on its
        number and its rows, so that a resumed submission cuts the same chunks.
        """
        np = self._np
        if (number := len(self._first_rows)) < len(self._written):
            return start + self._written[number]
        end = int(np.searchsorted(new, (new[start - 1] if start else 0) + self._sizes.after(self.rows))) + 1
        end = min(end, start + _CHUNK_ROWS)
        if self._max_chars < CHUNK_CHARS:
            return end
        chars = np.cumsum([*map(len, self._texts[start:end])])
        return min(end, start + int(np.searchsorted(chars, CHUNK_CHARS)) + 1)

    def _cut(self, start: int, end: int) -> None:
        """Make a chunk of these waiting rows."""
        from labelmill.core.chunks.encoding import CutChunk  # noqa: PLC0415 - as NumPy

        ids = None if self._ids is None else self._ids[start:end]
        texts, firsts = self._texts[start:end], self._firsts[start:end]
        chunk = CutChunk.of(len(self._first_rows), self.rows, texts, ids, firsts, self.duplicates)
        self._first_rows.append(self.rows)
        if chunk.firsts.size:
            self._repeated.append(chunk.firsts.astype(self._np.uint32))
        self.duplicates = chunk.duplicates_so_far
        self.rows += len(texts)
        while len(self._unencoded) >= _CUTS_AHEAD:
            self._unencoded.popleft().result()
        self._unencoded.append(self._encoding.submit(self._encoder.encode, chunk))
        self._waiting.append(self._unencoded[-1])
        if len(self._waiting) >= _CHUNKS_PER_COMMIT or len(chunk.texts) >= CHUNK_CHARS:
            self._hand_over()

    def _drop(self, count: int) -> None:
        """Remove the first waiting rows, which are in a chunk now."""
        del self._texts[:count]
        if self._ids is not None:
            del self._ids[:count]
        self._firsts = self._firsts[count:]

    def _hand_over(self) -> None:
        """Have the thread write the waiting chunks in one transaction: a commit for each would cost more than all
        other work."""
        if not self._waiting:
            return
        while len(self._commits) >= _COMMITS_AHEAD:
            self._commits.popleft().result()
        self._commits.append(self._writing.submit(self._commit, self._waiting))
        self._waiting = []

    def _commit(self, encoding: Sequence[Future[EncodedChunk]]) -> None:
        # everything possible is done before the transaction, because it holds SQLite's only write lock
        chunks = [future.result() for future in encoding]
        try:
            self._write(chunks)
        except (IntegrityError, _NotSubmittingError):  # some exist already, from an interrupted attempt
            for chunk in chunks:
                try:
                    self._write([chunk])
                except (IntegrityError, _NotSubmittingError):
                    self._compare_with_written(chunk)

    def _write(self, chunks: Sequence[EncodedChunk]) -> None:
        inputs = [{"batch_no": self._batch_no, "number": encoded.number, "data": encoded.data} for encoded in chunks]
        rows = [self._chunk_row(chunk) for chunk in chunks]
        last = chunks[-1]
        with writing(self._engine) as connection:
            self._guard(connection)
            # separately: an earlier attempt that wrote any of them wrote the first one, and a failing statement for
            # many rows makes psycopg print warnings to stderr
            connection.execute(insert(ChunkRow), rows[0])
            # one statement for all others: between statements the reading thread takes the interpreter lock
            if rows[1:]:
                connection.execute(insert(ChunkRow), rows[1:])
            connection.execute(insert(ChunkInputRow), inputs)
            self._write_duplicates(connection, chunks)
            still_open = connection.execute(
                update(BatchRow)
                .where(BatchRow.no == self._batch_no, BatchRow.state == BatchState.SUBMITTING.value)
                .values(rows=last.first_row + last.rows, duplicates=last.duplicates_so_far)
            ).rowcount
            if not still_open:
                raise _NotSubmittingError

    def _compare_with_written(self, chunk: EncodedChunk) -> None:
        """Raise KeyTaken unless the chunk that another attempt wrote under this number is the same."""
        with reading(self._engine) as connection:
            batch = connection.execute(
                select(BatchRow.state, BatchRow.content_digest).where(BatchRow.no == self._batch_no)
            ).one()
            written = connection.scalar(
                select(ChunkInputRow.data).where(
                    ChunkInputRow.batch_no == self._batch_no, ChunkInputRow.number == chunk.number
                )
            )
        _require_opened(batch.state, batch.content_digest)
        if written is None or decode_chunk(written) != decode_chunk(chunk.data):
            raise self._other_content(f"other rows from row {chunk.first_row} on")

    def _chunk_row(self, chunk: EncodedChunk) -> dict[str, Any]:
        texts = chunk.rows - len(chunk.repeats)
        # a chunk that only repeats earlier texts is answered by their answers
        state = ChunkState.PENDING if texts else ChunkState.DONE
        return {
            "batch_no": self._batch_no,
            "number": chunk.number,
            "state": state.value,
            "first_row": chunk.first_row,
            "rows": chunk.rows,
            "texts": texts,
        }

    def _write_duplicates(self, connection: Connection, chunks: Sequence[EncodedChunk]) -> None:
        rows = self._np.concatenate([chunk.repeats for chunk in chunks])
        firsts = self._np.concatenate([chunk.firsts for chunk in chunks])
        names = [name for chunk in chunks for name in chunk.names]
        count = len(rows)
        if not count:
            return
        columns = ("batch_no", "row", "first_row", "external_id")
        dialect = dialect_of(connection)
        if dialect.copies_binary:
            from labelmill.core.database.binary_copy import pack_rows  # noqa: PLC0415 - NumPy

            numbers = [(">i8", self._batch_no), (">i8", rows), (">i8", firsts)]
            packed = pack_rows(count, numbers, names, fields=len(columns))
            dialect.copy_binary(connection, "duplicate_rows", columns, [packed], count)
            return
        dialect.bulk_insert(
            connection,
            "duplicate_rows",
            columns,
            zip([self._batch_no] * count, rows.tolist(), firsts.tolist(), names, strict=True),
        )


def _require_opened(state: str, content_digest: str | None) -> None:
    """Raise BatchEnded for a batch that ended before it was queued."""
    if state in (BatchState.CANCELLED.value, BatchState.FAILED.value) and content_digest is None:
        raise BatchEnded
