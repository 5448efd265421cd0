"""Which chunks get a message now. For each batch a bounded number of messages, the window, is on Redis."""

from __future__ import annotations

from functools import partial

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import BrokerUnavailable
from labelmill.contracts.ids import remote_batch_id
from labelmill.contracts.messages import CLASSIFY, ChunkMessage
from labelmill.contracts.states import ChunkState, Mode
from labelmill.core.database import after_commit, db_now, writing
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import OPEN_CHUNK, BatchRow, ChunkRow
from labelmill.core.jobs.remote_batches import begin_remote_batch
from labelmill.core.jobs.tables import is_runnable
from labelmill.core.queue.sender import MessageSender

WINDOW = 32  #: Maximum number of chunks of one batch that are queued or being processed.
_AHEAD = 8  # windows


def _unsent(lost_after_s: float) -> ColumnElement[bool]:
    return or_(ChunkRow.sent_at.is_(None), ChunkRow.sent_at < db_now() - lost_after_s)


def dispatch_batch(
    engine: Engine, sender: MessageSender, batch_id: str, *, lost_after_s: float = 3600, window: int = WINDOW
) -> int:
    """Send messages for the batch's next chunks, as many as the window leaves room for.

    The message of a chunk that is older than `lost_after_s` and was not claimed counts as lost and is sent again.
    A batch that runs in Mistral's Batch API gets its next remote batch instead. Returns how many messages were sent.
    Raises BrokerUnavailable; nothing is marked as sent then.
    """
    with writing(engine) as connection:
        batch = connection.execute(
            select(BatchRow.no, BatchRow.priority, BatchRow.runs_in).where(
                BatchRow.id == batch_id, is_runnable(BatchRow)
            )
        ).first()
        if batch is None:
            return 0
        if batch.runs_in == Mode.BATCH.value:
            # after this transaction: beginning one locks the batch
            after_commit(connection, partial(dispatch_remote_batch, engine, sender, batch_id, batch.priority))
            return 0
        # one dispatcher of a batch at a time: two would each fill the window
        if dialect_of(connection).locks_rows:
            connection.execute(select(BatchRow.no).where(BatchRow.no == batch.no).with_for_update())
        of_batch = ChunkRow.batch_no == batch.no
        pending = ChunkRow.state == ChunkState.PENDING.value
        claimed = connection.scalar(
            select(func.count())
            .select_from(ChunkRow)
            .where(of_batch, OPEN_CHUNK, ChunkRow.state == ChunkState.CLAIMED.value)
        )
        # chunks are sent in order: those with a message are among the first, so the others need not be read
        first = connection.execute(
            select(ChunkRow.number, _unsent(lost_after_s).label("unsent"))
            .where(of_batch, OPEN_CHUNK, pending, ChunkRow.number >= 0)  # without it SQLite walks the primary key
            .order_by(ChunkRow.number)
            .limit(_AHEAD * window)
        ).all()
        unsent = [chunk.number for chunk in first if chunk.unsent]
        room = window - (claimed or 0) - (len(first) - len(unsent))
        numbers = unsent[: max(0, room)]
        if not numbers:
            return 0
        connection.execute(update(ChunkRow).where(of_batch, ChunkRow.number.in_(numbers)).values(sent_at=db_now()))
    try:
        messages = [ChunkMessage(job_id=batch_id, chunk=number) for number in numbers]
        sender.send(CLASSIFY, messages, priority=batch.priority)
    except BrokerUnavailable:
        with writing(engine) as connection:
            connection.execute(
                update(ChunkRow)
                .where(ChunkRow.batch_no == batch.no, ChunkRow.number.in_(numbers), pending)
                .values(sent_at=None)
            )
        raise
    return len(numbers)


def dispatch_remote_batch(engine: Engine, sender: MessageSender, batch_id: str, priority: str) -> None:
    """Begin the batch's next remote batch if it needs one, and send its message. Raises BrokerUnavailable: recovery
    sends it then."""
    number = begin_remote_batch(engine, batch_id)
    if number is not None:
        send_remote_batch(sender, number, priority)


def send_remote_batch(
    sender: MessageSender, number: int, priority: str = "normal", *, countdown_s: float | None = None
) -> None:
    """Send the message by which a worker takes the next step of a remote batch. Raises BrokerUnavailable."""
    message = ChunkMessage(job_id=remote_batch_id(number), chunk=0)
    sender.send(CLASSIFY, [message], priority=priority, countdown_s=countdown_s)
