"""Chunks in SQL: claim, write answers under the claim's token, close or release."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import bindparam, exists, insert, select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import BudgetReached, LabelmillError, Retryable
from labelmill.contracts.inner_methods import VECTORS
from labelmill.contracts.job_kinds import BATCH
from labelmill.contracts.states import BatchState, ChunkState, Mode
from labelmill.core.chunks.codec import ChunkInput, decode_chunk, decode_repeats
from labelmill.core.database import reading, writing
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import (
    OPEN_CHUNK,
    BatchRow,
    ChunkInputRow,
    ChunkRepeatsRow,
    ChunkRow,
    DuplicateRow,
    ModelRow,
    ModelTargetRow,
    PredictionRow,
    RowErrorRow,
    utc_now,
)
from labelmill.core.jobs import chunk_transitions, events
from labelmill.core.jobs.chunk_transitions import is_claimed
from labelmill.core.jobs.leases import LeaseLost
from labelmill_worker.store.budgets import Cap, caps_of, is_reached
from labelmill_worker.store.transitions import move_job
from labelmill_worker.store.vectors import rows_with_vectors

_ERROR_COLUMNS = ("batch_no", "row", "external_id", "code", "message")


# Statements of every claim, built once: building one takes as long as running it.

_BATCH = select(
    BatchRow.no,
    BatchRow.state,
    BatchRow.options,
    BatchRow.model_no,
    BatchRow.priority,
    BatchRow.owner_id,
    BatchRow.max_cost,
).where(BatchRow.id == bindparam("id"))
_REALTIME_BATCH = _BATCH.where(BatchRow.runs_in == Mode.REALTIME.value)
_CHUNK = (
    select(
        ChunkRow.first_row,
        ChunkRow.rows,
        ChunkRow.attempts,
        ChunkRow.labelled,
        ChunkRow.abstained,
        ChunkRow.failed,
        ChunkRow.faults,
        ChunkInputRow.data,
        ChunkRepeatsRow.data.label("repeats"),
    )
    .join(ChunkInputRow, (ChunkInputRow.batch_no == ChunkRow.batch_no) & (ChunkInputRow.number == ChunkRow.number))
    .outerjoin(
        ChunkRepeatsRow,
        (ChunkRepeatsRow.batch_no == ChunkRow.batch_no) & (ChunkRepeatsRow.number == ChunkRow.number),
    )
    .where(ChunkRow.batch_no == bindparam("of_batch"), ChunkRow.number == bindparam("of_chunk"))
)
_MODEL = select(ModelRow.__table__).where(ModelRow.no == bindparam("model_no"))
_IS_OPEN = select(exists().where(ChunkRow.batch_no == bindparam("of_batch"), OPEN_CHUNK))


@dataclass(frozen=True)
class Claim:
    """A chunk that this worker may write while its lease lasts."""

    batch_no: int
    batch_id: str
    number: int
    token: str
    first_row: int
    attempts: int
    priority: str
    options: dict[str, Any]
    model: ModelRow
    input: ChunkInput
    answered: frozenset[int]  #: Rows that have their answer or error from an earlier claim.
    claimed_at: float = 0.0  #: When the lease was asked for, by this process' monotonic clock.
    repeats: dict[int, int] = field(default_factory=dict)  #: row → how many later rows have the same text
    faults: int = 0  #: Unforeseen, since the chunk's last progress.
    owner_id: str | None = None  #: The training or evaluation that the batch runs for.
    caps: tuple[Cap, ...] = ()  #: On what may be spent.
    reserved_by: str | None = None  #: Who reserved for its requests, where that is not the claim itself.
    uncounted: int = 0  #: Rows whose texts another batch embedded: answered, but not yet in the chunk's counts.

    @property
    def holder(self) -> str:
        """Under which key its requests are reserved."""
        return self.reserved_by or self.token

    @property
    def charged_to(self) -> str:
        """The job that was asked for, and pays."""
        return self.owner_id or self.batch_id


def claim_chunk(
    engine: Engine, batch_id: str, number: int, lease_s: float, monthly_cap: float | None = None
) -> Claim | None:
    """Take the lease on a chunk that is runnable. None: done, taken by another worker, or the batch runs no more.
    `monthly_cap`: the installation's."""
    token, asked_at = secrets.token_hex(8), time.monotonic()
    with writing(engine) as connection:
        batch = connection.execute(_REALTIME_BATCH, {"id": batch_id}).first()
        if batch is None or batch.state not in BATCH.runnable:
            return None
        if batch.state == BatchState.QUEUED.value and dialect_of(connection).locks_rows:
            # batch before chunk, as a dispatcher locks them: two that wait for each other would both be stuck
            connection.execute(select(BatchRow.no).where(BatchRow.no == batch.no).with_for_update())
        if not chunk_transitions.claim(connection, batch.no, number, token, lease_s):
            return None
        if batch.state == BatchState.QUEUED.value:
            move_job(connection, batch_id, BatchState.RUNNING, old=BatchState.QUEUED, started_at=utc_now())
    try:
        return _counted(engine, _read_claim(engine, batch_id, number, token, batch, asked_at, monthly_cap))
    except ValueError as error:
        fail_chunk(engine, batch.no, batch_id, number, token, str(error))
        complete_batch(engine, batch.no, batch_id)
        return None


class ChunkBusy(Retryable):
    """Another worker holds the chunk, or held it until it died."""

    code = "chunk_busy"


def claim_chunk_of_remote(
    engine: Engine, batch_id: str, number: int, lease_s: float, *, reserved_by: str, monthly_cap: float | None
) -> Claim | None:
    """Take the lease on a chunk of a batch in mode batch, whose rows nobody else sends. The batch may have ended: what
    it has paid for is recorded all the same. `reserved_by`: the holder of what is reserved for its requests. None: the
    chunk is done, or cannot be read. Raises ChunkBusy."""
    token, asked_at = secrets.token_hex(8), time.monotonic()
    with writing(engine) as connection:
        batch = connection.execute(_BATCH, {"id": batch_id}).one()
        if not chunk_transitions.claim(connection, batch.no, number, token, lease_s, from_dead=True):
            of_chunk = (ChunkRow.batch_no == batch.no) & (ChunkRow.number == number)
            if connection.scalar(select(ChunkRow.state).where(of_chunk)) == ChunkState.CLAIMED.value:
                raise ChunkBusy(f"chunk {number} is held by another worker", 1.0)
            return None
    try:
        claim = _read_claim(engine, batch_id, number, token, batch, asked_at, monthly_cap)
        return _counted(engine, replace(claim, reserved_by=reserved_by))
    except ValueError as error:
        fail_chunk(engine, batch.no, batch_id, number, token, str(error))
        return None


def _read_claim(
    engine: Engine, batch_id: str, number: int, token: str, batch: Any, asked_at: float, monthly_cap: float | None
) -> Claim:
    with reading(engine) as connection:
        chunk = connection.execute(_CHUNK, {"of_batch": batch.no, "of_chunk": number}).one()
        model = connection.execute(_MODEL, {"model_no": batch.model_no}).mappings().one()
        answered: set[int] = set()
        last_row = chunk.first_row + chunk.rows
        if chunk.labelled or chunk.abstained or chunk.failed:
            for table in (PredictionRow, RowErrorRow):
                answered |= set(
                    connection.scalars(
                        select(table.row).where(
                            table.batch_no == batch.no, table.row >= chunk.first_row, table.row < last_row
                        )
                    )
                )
        repeats = decode_repeats(chunk.repeats) if chunk.repeats else {}
        held, uncounted = decode_chunk(chunk.data), 0
        if model["method"] == VECTORS:
            embedded = rows_with_vectors(connection, batch.model_no, held, chunk.first_row) - answered
            uncounted = sum(1 + repeats.get(row, 0) for row in embedded) - chunk.labelled
            answered |= embedded
    return Claim(
        batch.no,
        batch_id,
        number,
        token,
        chunk.first_row,
        chunk.attempts,
        batch.priority,
        batch.options,
        ModelRow(**model),
        held,
        frozenset(answered),
        asked_at,
        repeats,
        chunk.faults,
        batch.owner_id,
        caps_of(batch.owner_id or batch_id, batch.max_cost, monthly_cap),
        uncounted=uncounted,
    )


def read_chunk_input(engine: Engine, batch_no: int, number: int) -> tuple[int, Sequence[str]]:
    """The number of a chunk's first row, and its texts."""
    of_chunk = (ChunkRow.batch_no == batch_no) & (ChunkRow.number == number)
    same = (ChunkInputRow.batch_no == ChunkRow.batch_no) & (ChunkInputRow.number == ChunkRow.number)
    with reading(engine) as connection:
        found = connection.execute(
            select(ChunkRow.first_row, ChunkInputRow.data).join(ChunkInputRow, same).where(of_chunk)
        ).one()
    return found.first_row, decode_chunk(found.data).texts


def _counted(engine: Engine, claim: Claim) -> Claim | None:
    """The claim, once the rows that another batch embedded are counted. None: its lease was lost."""
    if not claim.uncounted:
        return claim
    held = is_claimed(claim.batch_no, claim.number, claim.token)
    counted = update(ChunkRow).where(held).values(labelled=ChunkRow.labelled + claim.uncounted)
    with writing(engine) as connection:
        return claim if connection.execute(counted).rowcount else None


def release_chunk(engine: Engine, claim: Claim, *, wait_s: float | None = None, fruitless: bool = False) -> None:
    """Release a chunk for a later claim (`claimed` → `pending`). `wait_s`: a message for it is sent to come then.
    Only `fruitless` claims are counted."""
    with writing(engine) as connection:
        if not chunk_transitions.release(
            connection, claim.batch_no, claim.number, claim.token, wait_s=wait_s, counts=fruitless
        ):
            raise LeaseLost("the lease on the chunk was lost")


def complete_batch(engine: Engine, batch_no: int, batch_id: str) -> bool:
    """End a batch whose last chunk is closed. Its own transaction: it must see what every other closer committed."""
    with reading(engine) as connection:
        if connection.scalar(_IS_OPEN, {"of_batch": batch_no}):
            return False
    open_chunk = exists().where(ChunkRow.batch_no == batch_no, OPEN_CHUNK)
    with writing(engine) as connection:
        return move_job(connection, batch_id, BatchState.COMPLETED, ~open_chunk)


def stop_batch(engine: Engine, claim: Claim, error: LabelmillError) -> None:
    """Fail a batch at once, or pause it where a budget is reached: nothing more of it is sent. Does nothing when the
    claim was lost, to a retry perhaps."""
    state = BatchState.PAUSED if isinstance(error, BudgetReached) else BatchState.FAILED
    with writing(engine) as connection:
        move_job(
            connection,
            claim.batch_id,
            state,
            exists().where(is_claimed(claim.batch_no, claim.number, claim.token)),
            old=BatchState.RUNNING,
            message=error.stored,
            chunk=claim.number,
            error=error.stored,
            error_code=error.code,
        )


def pause_at_cap(engine: Engine, claim: Claim, cap: Cap, next_amount: int) -> bool:
    """Pause a batch whose next request may cost more than is left of a cap. False: a reservation is outstanding that
    could come back, or the claim was lost."""
    error = cap.reached(claim.charged_to)
    with writing(engine) as connection:
        return is_reached(connection, cap, next_amount) and move_job(
            connection,
            claim.batch_id,
            BatchState.PAUSED,
            exists().where(is_claimed(claim.batch_no, claim.number, claim.token)),
            old=BatchState.RUNNING,
            message=error.stored,
            error=error.stored,
            error_code=error.code,
        )


def has_answers(engine: Engine, batch_no: int) -> bool:
    """Whether any row of a batch was answered so far, by whatever process and claim."""
    answered = exists().where(ChunkRow.batch_no == batch_no, ChunkRow.labelled + ChunkRow.abstained > 0)
    with reading(engine) as connection:
        return bool(connection.scalar(select(answered)))


def fail_chunk(engine: Engine, batch_no: int, batch_id: str, number: int, token: str, reason: str) -> None:
    """Set a chunk aside whose input cannot be read: each of its rows that has no answer gets the reason."""
    mine = is_claimed(batch_no, number, token)
    with writing(engine) as connection:
        chunk = connection.execute(select(ChunkRow.first_row, ChunkRow.rows).where(mine).with_for_update()).first()
        if chunk is None:
            return

        def rows_of(table: type[PredictionRow | RowErrorRow | DuplicateRow], column: Any) -> list[int]:
            within = (column >= chunk.first_row) & (column < chunk.first_row + chunk.rows)
            return list(connection.scalars(select(column).where(table.batch_no == batch_no, within)))

        known = {row for table in (PredictionRow, RowErrorRow, DuplicateRow) for row in rows_of(table, table.row)}
        failed = set(range(chunk.first_row, chunk.first_row + chunk.rows)) - known
        # not as the chunk's repeats have it: it may be those that cannot be read
        repeats = sum(row in failed for row in rows_of(DuplicateRow, DuplicateRow.first_row))
        errors = [(batch_no, row, None, "unreadable_input", reason) for row in sorted(failed)]
        dialect_of(connection).bulk_insert(connection, "error_rows", _ERROR_COLUMNS, errors)
        chunk_transitions.fail(connection, batch_no, number, token, len(failed) + repeats)
        events.note(connection, batch_id, reason, chunk=number)


def save_learned_schema(engine: Engine, model_no: int, schema: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the labels of a raw model id, found in its first good answer. Returns what is kept: the first one wins."""
    with writing(engine) as connection:
        first = connection.execute(
            update(ModelRow).where(ModelRow.no == model_no, ModelRow.label_schema.is_(None)).values(label_schema=schema)
        ).rowcount
        if first:
            rows: Sequence[dict[str, Any]] = [
                {"model_no": model_no, "target": index, "name": target["name"]} for index, target in enumerate(schema)
            ]
            connection.execute(insert(ModelTargetRow), list(rows))
            return schema
        kept = connection.scalar(select(ModelRow.label_schema).where(ModelRow.no == model_no))
    return kept or schema
