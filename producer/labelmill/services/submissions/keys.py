"""Idempotency keys of batches, whose content is compared too: the next submission under the key of an interrupted one
resumes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import InvalidInput, LabelmillError
from labelmill.contracts.field_names import named
from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.specs import ClassifySpec
from labelmill.contracts.states import BatchState, Mode
from labelmill.core.database import db_now, writing
from labelmill.core.database.tables import BatchRow, ModelRow, utc_now
from labelmill.core.jobs.transitions import create_job, move_job
from labelmill.core.readers import TextBlock
from labelmill.services.submissions.idempotency import KeyedJob, digest_of_request, find_by_key, keyed

SUBMISSION_BROKEN = "submission_broken"  #: The error code of a batch whose rows were never all written.


@dataclass(frozen=True)
class Order:
    """The properties of a new batch, which a key fixes together with the content."""

    model_no: int
    model_ref: str
    spec: ClassifySpec
    mode: str
    priority: str
    max_cost: float | None = None

    @property
    def request_digest(self) -> str | None:
        """Of what a later command may change in the batch's row: `retry` its `max_cost`."""
        return None if self.max_cost is None else digest_of_request(Kind.BATCH, max_cost=self.max_cost)


@dataclass(frozen=True)
class OpenedBatch:
    """The batch of a submission: new, or found by its key."""

    no: int
    id: str
    state: str
    content_digest: str | None = None
    is_new: bool = True
    has_key: bool = True


def model_submitted_before(connection: Connection, key: str, model_ref: str) -> ModelRow | None:
    """The model version of the batch that the key stands for, if it was submitted with this reference. Raises
    KeyTaken."""
    if (existing := find_by_key(connection, key, Kind.BATCH)) is None:
        return None
    statement = (
        select(ModelRow.__table__)
        .join(BatchRow, BatchRow.model_no == ModelRow.no)
        .where(BatchRow.id == existing.id, BatchRow.model_ref == model_ref)
    )
    row = connection.execute(statement).mappings().first()
    return None if row is None else ModelRow(**row)


def open_batch(
    connection: Connection, order: Order, key: str | None, metadata: Mapping[str, str], *, is_repeated: bool = False
) -> OpenedBatch:
    """Make the batch, or find the one that has this key. Raises KeyTaken if it has another model or other options.

    `is_repeated`: there was one a moment ago, whose model the order names.
    """
    if key is not None and (existing := find_by_key(connection, key, Kind.BATCH)) is not None:
        return _same_batch(connection, order, existing)
    if is_repeated:
        raise InvalidInput(f"the batch under this {named('idempotency_key')} has just been cancelled: submit it again")
    batch_id, deadline_s = new_id(Kind.BATCH), order.spec.deadline_s
    values = {
        "model_no": order.model_no,
        "model_ref": order.model_ref,
        "mode": order.mode,
        "runs_in": Mode.REALTIME.value if order.mode == Mode.REALTIME.value else Mode.BATCH.value,
        "deadline_at": None if deadline_s is None else utc_now() + timedelta(seconds=deadline_s),
        "priority": order.priority,
        "max_cost": order.max_cost,
        "options": order.spec.model_dump(mode="json"),
        "submitter_seen_at": db_now(),
        **keyed(key, order.request_digest),
    }
    batch_no = create_job(connection, batch_id, BatchState.SUBMITTING, "submitted", metadata=metadata, **values)
    return OpenedBatch(batch_no, batch_id, BatchState.SUBMITTING.value, has_key=key is not None)


def _same_batch(connection: Connection, order: Order, job: KeyedJob) -> OpenedBatch:
    columns = (
        BatchRow.no,
        BatchRow.content_digest,
        BatchRow.options,
        BatchRow.model_no,
        BatchRow.model_ref,
        BatchRow.mode,
        BatchRow.priority,
    )
    existing = connection.execute(select(*columns).where(BatchRow.id == job.id)).one()
    # through the spec, because options that are newer than the batch are not stored; the source, its format and the
    # model version's settings at submission do not matter
    same = {name: getattr(order.spec, name) for name in ("source", "formats", "temperatures", "model_thresholds")}
    options = ClassifySpec(**existing.options).model_copy(update=same)
    requested = (order.mode, order.priority, order.spec, order.request_digest)
    # a name may mean another version by now, and a version may be named in two ways
    is_same_model = existing.model_ref == order.model_ref or existing.model_no == order.model_no
    if not is_same_model or (existing.mode, existing.priority, options, job.request_digest) != requested:
        raise job.taken("another model or other options")
    return OpenedBatch(existing.no, job.id, job.state, existing.content_digest, is_new=False)


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
        raise KeyedJob(batch.id, Kind.BATCH, batch.state, None).taken("other content")


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
