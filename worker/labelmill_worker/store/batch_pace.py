"""How long batch jobs and batches in realtime took so far: what mode auto goes by."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.engine import Engine

from labelmill.contracts.states import BatchState, Mode
from labelmill.core.database import db_now, reading
from labelmill.core.database.tables import BatchRow, ChunkRow, ModelRow, RemoteBatchRow
from labelmill.core.jobs.remote_batches import holds_rows

_JOBS = 50  #: The newest so many count …
_MAX_AGE_S = 7 * 86_400.0  #: … while they are so young: else slow days would keep a model from batch jobs for ever.
_BATCHES = 5
_MIN_REQUESTS = 20  #: Of a batch whose speed says something.


def ended_jobs(engine: Engine, model: str) -> list[tuple[int, float]]:
    """Requests and seconds of the batch jobs that ended well lately: those of the model, or of any if it has none."""
    took = RemoteBatchRow.ended_at - RemoteBatchRow.made_at
    is_young = RemoteBatchRow.ended_at > db_now() - _MAX_AGE_S
    ended = select(RemoteBatchRow.requests, took).where(RemoteBatchRow.remote_status == "SUCCESS", took > 0, is_young)
    newest = ended.order_by(RemoteBatchRow.no.desc()).limit(_JOBS)
    with reading(engine) as connection:
        found = connection.execute(newest.where(RemoteBatchRow.model == model)).all()
        found = found or connection.execute(newest).all()
    return [(requests, float(seconds)) for requests, seconds in found if seconds is not None]


def realtime_batches(engine: Engine, model: str) -> list[tuple[int, int, float]]:
    """Requests, tokens and seconds of the model's newest batches that were sent in realtime from their beginning."""
    sums = (func.coalesce(func.sum(ChunkRow.requests), 0), func.coalesce(func.sum(ChunkRow.tokens), 0))
    newest = (
        select(BatchRow.no, BatchRow.started_at, BatchRow.finished_at)
        .join(ModelRow, ModelRow.no == BatchRow.model_no)
        .where(
            ModelRow.remote_model == model,
            BatchRow.mode == Mode.REALTIME.value,
            BatchRow.state == BatchState.COMPLETED.value,
            BatchRow.started_at.is_not(None),
        )
        .order_by(BatchRow.no.desc())
        .limit(_BATCHES)
    )
    found = []
    with reading(engine) as connection:
        for batch in connection.execute(newest).all():
            requests, tokens = connection.execute(select(*sums).where(ChunkRow.batch_no == batch.no)).one()
            if requests >= _MIN_REQUESTS:
                found.append((int(requests), int(tokens), (batch.finished_at - batch.started_at).total_seconds()))
    return found


@dataclass(frozen=True)
class Remainder:
    """What is left of a batch."""

    texts: int  #: Distinct ones, without an answer or an error.
    rows_at_mistral: int  #: Of remote batches that hold rows.


def remainder_of(engine: Engine, batch_no: int) -> Remainder:
    """What is left of a batch. Where rows repeat others, the distinct texts are estimated by their share."""
    done = ChunkRow.labelled + ChunkRow.abstained + ChunkRow.failed
    sums = (func.coalesce(func.sum(ChunkRow.texts), 0), func.coalesce(func.sum(done), 0))
    held = select(func.coalesce(func.sum(RemoteBatchRow.rows), 0)).where(RemoteBatchRow.batch_no == batch_no)
    with reading(engine) as connection:
        rows = connection.scalar(select(BatchRow.rows).where(BatchRow.no == batch_no)) or 0
        texts, answered = connection.execute(select(*sums).where(ChunkRow.batch_no == batch_no)).one()
        at_mistral = connection.scalar(held.where(holds_rows()))
    share = int(texts) / rows if rows else 1.0
    return Remainder(round(max(0, rows - int(answered)) * share), int(at_mistral or 0))
