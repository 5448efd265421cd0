"""Idempotency keys: one key stands for one batch, whose model, options and content never change.

The key of a cancelled batch is free: the next submission under it makes a new batch. So is the key of a batch whose
input was refused. Every other batch keeps its key; the next submission under it resumes an interrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import InvalidInput, KeyTaken, LabelmillError
from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.job_kinds import moves_to
from labelmill.contracts.specs import ClassifySpec
from labelmill.contracts.states import BatchState
from labelmill.core.database import writing
from labelmill.core.database.tables import BatchRow
from labelmill.core.jobs.transitions import create_job_unless_duplicate, move_job
from labelmill.core.readers import TextBlock

SUBMISSION_BROKEN = "submission_broken"  #: The error code of a batch whose rows were never all written.
_TRIES = 10  #: A further try is needed only when another submission takes or frees the key at the same time.


@dataclass(frozen=True)
class Order:
    """The properties of a new batch, which a key fixes together with the content."""

    model_no: int
    model_ref: str
    spec: ClassifySpec
    mode: str
    priority: str


@dataclass(frozen=True)
class OpenedBatch:
    """The batch of a submission: new, or found by its key."""

    no: int
    id: str
    state: str
    content_digest: str | None = None
    is_new: bool = True
    has_key: bool = True


def open_batch(connection: Connection, order: Order, key: str | None) -> OpenedBatch:
    """Make the batch, or find the one that has this key. Raises KeyTaken if it has another model or other options.

    Of two submissions under one key at the same time, one makes the batch and the other finds it.
    """
    for _ in range(_TRIES):
        if key is not None and (existing := _find(connection, order, key)) is not None:
            return existing
        if (made := _make(connection, order, key)) is not None:
            return made
    raise InvalidInput(
        f"the idempotency key {key!r} is being used by other submissions: try again", field="idempotency_key"
    )


def _find(connection: Connection, order: Order, key: str) -> OpenedBatch | None:
    columns = (
        BatchRow.no,
        BatchRow.id,
        BatchRow.state,
        BatchRow.content_digest,
        BatchRow.options,
        BatchRow.model_no,
        BatchRow.mode,
        BatchRow.priority,
    )
    existing = connection.execute(select(*columns).where(BatchRow.idempotency_key == key)).first()
    if existing is None:
        return None
    if existing.state == BatchState.CANCELLED.value:
        cancelled = (BatchRow.no == existing.no) & (BatchRow.state == BatchState.CANCELLED.value)
        connection.execute(update(BatchRow).where(cancelled).values(idempotency_key=None))
        return None
    # through the spec, because options that are newer than the batch are not stored; the source, its format and the
    # model version's settings at submission do not matter
    same = {name: getattr(order.spec, name) for name in ("source", "formats", "temperatures", "model_thresholds")}
    options = ClassifySpec(**existing.options).model_copy(update=same)
    requested = (order.model_no, order.mode, order.priority, order.spec)
    if (existing.model_no, existing.mode, existing.priority, options) != requested:
        raise _taken(existing.id, existing.state, "another model or other options")
    return OpenedBatch(existing.no, existing.id, existing.state, existing.content_digest, is_new=False)


def _make(connection: Connection, order: Order, key: str | None) -> OpenedBatch | None:
    """A new batch; None: another submission has made one under this key in the meantime."""
    batch_id = new_id(Kind.BATCH)
    values = {
        "model_no": order.model_no,
        "model_ref": order.model_ref,
        "mode": order.mode,
        "priority": order.priority,
        "options": order.spec.model_dump(mode="json"),
        "idempotency_key": key,
    }
    batch_no = create_job_unless_duplicate(
        connection, "idempotency_key", batch_id, BatchState.SUBMITTING, "submitted", **values
    )
    if batch_no is None:
        return None
    return OpenedBatch(batch_no, batch_id, BatchState.SUBMITTING.value, has_key=key is not None)


def require_same_content(
    batch: OpenedBatch, blocks: Iterable[TextBlock], on_progress: Callable[[int], None] = lambda _: None
) -> None:
    """Read all rows and raise KeyTaken unless they are the ones that the batch was submitted with."""
    from labelmill.core.chunks.encoding import ContentDigest  # noqa: PLC0415 - NumPy, a tenth of a second

    digest = ContentDigest()
    for block in blocks:
        digest.add(block.texts, block.ids)
        on_progress(len(block))
    if digest.hexdigest() != batch.content_digest:
        raise _taken(batch.id, batch.state, "other content")


def _taken(batch_id: str, state: str, difference: str) -> KeyTaken:
    return KeyTaken(batch_id, difference, can_be_cancelled=moves_to(BatchState(state), BatchState.CANCELLED))


def end_broken_submission(engine: Engine, batch_id: str, error: BaseException) -> None:
    """End a batch that will never be queued, and free its key for the corrected input."""
    if isinstance(error, LabelmillError):
        reason = error.stored
    else:
        reason = f"the submission ended early ({type(error).__name__}): submit it again"
    with writing(engine) as connection:
        move_job(
            connection,
            batch_id,
            BatchState.FAILED,
            old=BatchState.SUBMITTING,
            message=reason,
            idempotency_key=None,
            error=reason,
            error_code=error.code if isinstance(error, InvalidInput) else SUBMISSION_BROKEN,
        )
