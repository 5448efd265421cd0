"""Remote batches in SQL: claims, steps, the rows that each holds. Every write is guarded by its lease."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import zstandard
from sqlalchemy import ColumnElement, case, delete, func, literal_column, or_, select, update
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.job_kinds import BATCH
from labelmill.contracts.states import BatchState, Mode, RemoteStep
from labelmill.contracts.usage import Usage
from labelmill.core.database import db_now, has_passed, reading, writing
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import BatchRow, ChunkRow, ModelRow, RemoteBatchRow, RemoteChunkRow, utc_now
from labelmill.core.jobs import events, leases
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.jobs.remote_batches import holds_rows, is_on_trial, is_unheld
from labelmill.core.money.prices import LISTED, PriceList
from labelmill.core.reported_limits import rest_of_month
from labelmill_worker.store.budgets import Holder, charge_unreserved
from labelmill_worker.store.ledger import Charged
from labelmill_worker.store.transitions import move_job

MAX_PENDING_REQUESTS = 1_000_000  #: Of all remote batches of the installation: what Mistral allows a workspace.
_AT_MISTRAL = (RemoteStep.CREATING, RemoteStep.WAITING)
_AT_ONCE = 200
_MAX_AHEAD_S = 900.0
_EARLY_S = 0.5  #: So much before its time a message may come.

#: The rows of each request of a chunk, in the order of their requests.
Requests = Sequence[Sequence[int]]


@dataclass(frozen=True)
class BatchOfRemote:
    """The batch that a remote batch works for, as it stood when it was read."""

    no: int
    id: str
    state: str
    runs_in: str
    stopping: str | None
    priority: str
    options: dict[str, Any]
    model: ModelRow
    owner_id: str | None  #: The training or evaluation that it runs for.
    max_cost: float | None
    deadline_s: float | None  #: Seconds from now, by the worker's clock.

    @property
    def charged_to(self) -> str:
        """The job that was asked for, and pays."""
        return self.owner_id or self.id

    @property
    def is_wanted(self) -> bool:
        """Whether its rows are still to be sent by remote batches."""
        return self.state in BATCH.runnable and self.stopping is None and self.runs_in == Mode.BATCH.value


@dataclass(frozen=True)
class RemoteClaim:
    """A remote batch that this worker may write while its lease lasts."""

    row: RemoteBatchRow
    token: str
    batch: BatchOfRemote
    now: float  #: When it was read, by the database's clock.

    @property
    def holder(self) -> Holder:
        """Under which key its requests are reserved."""
        return Holder(f"remote:{self.row.marker}")

    @property
    def step(self) -> RemoteStep:
        """What is to be done next."""
        return RemoteStep(self.row.step)


def claim_remote_batch(engine: Engine, no: int, lease_s: float) -> RemoteClaim | None:
    """Take the lease. None: another worker has it, or nothing is left to do now: a second message of one that waits
    must not begin a second chain of polls."""
    is_due = has_passed(RemoteBatchRow.next_look_at, ago_s=-_EARLY_S, max_ahead_s=_MAX_AHEAD_S)
    is_open = (RemoteBatchRow.no == no, RemoteBatchRow.step != RemoteStep.DONE.value, is_due)
    with writing(engine) as connection:
        token = leases.claim(
            connection, RemoteBatchRow, *is_open, lease_s=lease_s, attempts=RemoteBatchRow.attempts + 1
        )
    return None if token is None else read_remote_batch(engine, no, token)


def read_remote_batch(engine: Engine, no: int, token: str) -> RemoteClaim | None:
    """A remote batch that this worker holds, and its batch. None: it is gone, or another worker has it."""
    with reading(engine) as connection:
        row = connection.execute(select(RemoteBatchRow.__table__).where(RemoteBatchRow.no == no)).mappings().first()
        if row is None or row["lease_token"] != token:
            return None
        batch = connection.execute(select(BatchRow.__table__).where(BatchRow.no == row["batch_no"])).mappings().one()
        model = connection.execute(select(ModelRow.__table__).where(ModelRow.no == batch["model_no"])).mappings().one()
        now = float(connection.scalar(select(db_now())) or 0.0)
    deadline = batch["deadline_at"]
    of_batch = BatchOfRemote(
        batch["no"],
        batch["id"],
        batch["state"],
        batch["runs_in"],
        batch["stopping"],
        batch["priority"],
        batch["options"],
        ModelRow(**model),
        batch["owner_id"],
        batch["max_cost"],
        (deadline - utc_now()).total_seconds() if deadline else None,
    )
    return RemoteClaim(RemoteBatchRow(**row), token, of_batch, now)


def renew_remote_batch(engine: Engine, no: int, token: str, lease_s: float) -> bool:
    """Prolong a lease. False: it was lost."""
    with writing(engine) as connection:
        return leases.renew(connection, RemoteBatchRow, token, RemoteBatchRow.no == no, lease_s=lease_s)


def write_remote(connection: Connection, claim: RemoteClaim, **values: Any) -> None:
    """Write to a remote batch within the connection's transaction. Raises LeaseLost."""
    of_row = RemoteBatchRow.no == claim.row.no
    if not leases.write(connection, RemoteBatchRow, claim.token, of_row, **values):
        raise LeaseLost("the lease on a remote batch was lost")


def require_remote(connection: Connection, claim: RemoteClaim) -> None:
    """Keep the lease until the connection's transaction ends. Raises LeaseLost."""
    write_remote(connection, claim, step=claim.row.step)


def advance(engine: Engine, claim: RemoteClaim, step: RemoteStep, message: str = "", **values: Any) -> None:
    """Go on to another step, with a line in the batch's history if there is a message. Raises LeaseLost."""
    with writing(engine) as connection:
        write_remote(connection, claim, step=step.value, attempts=0, faults=0, **values)
        if message:
            events.note(connection, claim.batch.id, message)


def save_remote(engine: Engine, claim: RemoteClaim, **values: Any) -> None:
    """Record facts about a remote batch. Raises LeaseLost."""
    with writing(engine) as connection:
        write_remote(connection, claim, **values)


def release_remote_batch(engine: Engine, claim: RemoteClaim, again_in_s: float, *, progressed: bool = True) -> bool:
    """Release the lease; the next step is due then. False: the lease was lost, or the remote batch is gone."""
    values: dict[str, Any] = {"next_look_at": db_now() + again_in_s, **leases.RELEASED}
    if progressed:
        values |= {"attempts": 0, "faults": 0}
    with writing(engine) as connection:
        return leases.write(connection, RemoteBatchRow, claim.token, RemoteBatchRow.no == claim.row.no, **values)


def count_fault(engine: Engine, claim: RemoteClaim) -> int:
    """Count an unforeseen fault. Returns how many there were in a row."""
    held = (RemoteBatchRow.no == claim.row.no) & leases.is_held(RemoteBatchRow, claim.token)
    with writing(engine) as connection:
        counted = update(RemoteBatchRow).where(held).values(faults=RemoteBatchRow.faults + 1)
        return int(connection.scalar(counted.returning(RemoteBatchRow.faults)) or 1)


# packing


def open_for_packing(engine: Engine, claim: RemoteClaim) -> bool:
    """queued → running. Returns whether the batch is on trial (see `is_on_trial`)."""
    with writing(engine) as connection:
        move_job(connection, claim.batch.id, BatchState.RUNNING, old=BatchState.QUEUED, started_at=utc_now())
    with reading(engine) as connection:
        return is_on_trial(connection, claim.batch.no)


def chunks_to_pack(engine: Engine, batch_no: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The numbers of chunks that no remote batch holds, in order, each with what is known of its rows."""
    after = -1
    while True:
        chunks = (
            select(ChunkRow.number, RemoteChunkRow.failures)
            .join(
                RemoteChunkRow,
                (RemoteChunkRow.batch_no == ChunkRow.batch_no) & (RemoteChunkRow.number == ChunkRow.number),
                isouter=True,
            )
            .where(ChunkRow.batch_no == batch_no, ChunkRow.number > after, is_unheld())
        )
        with reading(engine) as connection:
            found = connection.execute(chunks.order_by(ChunkRow.number).limit(_AT_ONCE)).all()
        for number, failures in found:
            yield number, failures or {}
        if len(found) < _AT_ONCE:
            return
        after = found[-1].number


def keep_packed(engine: Engine, claim: RemoteClaim, packed: Mapping[int, bytes], **values: Any) -> None:
    """packing → the next step: the remote batch holds these rows of these chunks, as
    `encode_requests` returns them. Raises LeaseLost."""
    batch_no, remote_no = claim.batch.no, claim.row.no
    with writing(engine) as connection:
        write_remote(connection, claim, attempts=0, faults=0, **values)
        for number, requests in packed.items():
            held = {"remote_no": remote_no, "requests": requests}
            of_chunk = (RemoteChunkRow.batch_no == batch_no) & (RemoteChunkRow.number == number)
            row = {"batch_no": batch_no, "number": number}
            connection.execute(dialect_of(connection).insert_or_ignore(RemoteChunkRow).values(row))
            connection.execute(update(RemoteChunkRow).where(of_chunk).values(held))


def drop_remote_batch(engine: Engine, claim: RemoteClaim) -> None:
    """Delete one that holds no row and was never made at Mistral. Raises LeaseLost."""
    with writing(engine) as connection:
        write_remote(connection, claim, faults=0)
        connection.execute(delete(RemoteBatchRow).where(RemoteBatchRow.no == claim.row.no))


def unreserved_batches(engine: Engine, claim: RemoteClaim, *, of_month: bool) -> list[tuple[str, str]]:
    """Id and model of the batches whose other remote batches were packed without a reservation and are not read yet: of
    the same job, or of all."""
    unreserved = (RemoteBatchRow.step != RemoteStep.PACKING.value) & holds_rows() & (RemoteBatchRow.reserved == 0)
    batches = (
        select(BatchRow.id, RemoteBatchRow.model)
        .join(BatchRow, BatchRow.no == RemoteBatchRow.batch_no)
        .where(unreserved, RemoteBatchRow.no != claim.row.no)
        .distinct()
        .order_by(BatchRow.id)
    )
    if not of_month:
        batches = batches.where(func.coalesce(BatchRow.owner_id, BatchRow.id) == claim.batch.charged_to)
    with reading(engine) as connection:
        return [(batch_id, model) for batch_id, model in connection.execute(batches) if model]


def takes_lists(engine: Engine, model: str) -> bool:
    """Whether requests with several texts may be sent: not after those were all refused and single texts answered."""
    sums = [
        func.coalesce(func.sum(case((~holds_rows(), column), else_=0)), 0)
        for column in (RemoteBatchRow.lists, RemoteBatchRow.refused_lists, RemoteBatchRow.single_answers)
    ]
    with reading(engine) as connection:
        lists, refused, single = connection.execute(select(*sums).where(RemoteBatchRow.model == model)).one()
    return not (lists and refused >= lists and single)


# what a remote batch holds


def held_chunks(engine: Engine, claim: RemoteClaim) -> dict[int, bytes]:
    """Chunk → the rows of its requests, compressed, in the chunks' order."""
    held = select(RemoteChunkRow.number, RemoteChunkRow.requests).where(RemoteChunkRow.remote_no == claim.row.no)
    with reading(engine) as connection:
        return {number: data for number, data in connection.execute(held.order_by(RemoteChunkRow.number)) if data}


def encode_requests(requests: Requests) -> bytes:
    """The rows of each request, as they are stored."""
    return zstandard.compress(orjson.dumps(requests))


def decode_requests(data: bytes) -> list[list[int]]:
    """The rows of each request."""
    requests: list[list[int]] = orjson.loads(zstandard.decompress(data))
    return requests


def let_go(connection: Connection, batch_no: int, number: int, failures: dict[str, Any] | None) -> None:
    """The chunk may be packed again, within the connection's transaction."""
    of_chunk = (RemoteChunkRow.batch_no == batch_no) & (RemoteChunkRow.number == number)
    free: dict[str, Any] = {"remote_no": None, "requests": None, "failures": failures}
    connection.execute(update(RemoteChunkRow).where(of_chunk).values(free))


def failures_of(connection: Connection, batch_no: int, number: int) -> dict[str, Any]:
    """What is known of a chunk's rows."""
    of_chunk = (RemoteChunkRow.batch_no == batch_no) & (RemoteChunkRow.number == number)
    return connection.scalar(select(RemoteChunkRow.failures).where(of_chunk)) or {}


def let_all_go(
    engine: Engine,
    claim: RemoteClaim,
    step: RemoteStep,
    message: str,
    usage: Usage | None = None,
    prices: PriceList = LISTED,
) -> None:
    """Go on to a step in which no row is held: all chunks may be packed again, as they were. `usage`: what its requests
    count as. Raises LeaseLost."""
    with writing(engine) as connection:
        write_remote(connection, claim, step=step.value, attempts=0, faults=0, ended_at=db_now())
        free = update(RemoteChunkRow).where(RemoteChunkRow.remote_no == claim.row.no)
        connection.execute(free.values(remote_no=None, requests=None))
        events.note(connection, claim.batch.id, message)
        if usage is not None and usage.requests:
            charge_unreserved(connection, Charged(claim.batch.charged_to, claim.batch.id, usage), prices)


# at Mistral


def needs_remote_job(engine: Engine, no: int, remote_id: str) -> bool:
    """Whether a job that was made for a remote batch is its own, or may be found by whoever has it now."""
    made = select(RemoteBatchRow.remote_id, RemoteBatchRow.step).where(RemoteBatchRow.no == no)
    with reading(engine) as connection:
        row = connection.execute(made).first()
    return row is not None and (row.remote_id == remote_id or row.step == RemoteStep.CREATING.value)


def reserve_requests(engine: Engine, claim: RemoteClaim) -> bool:
    """uploading → creating, if Mistral's limit of pending requests allows it. Raises LeaseLost."""
    with writing(engine) as connection:
        dialect_of(connection).lock_name(connection, "pending requests of remote batches")
        pending = connection.scalar(
            select(func.coalesce(func.sum(RemoteBatchRow.requests), 0)).where(
                RemoteBatchRow.step.in_([step.value for step in _AT_MISTRAL]), RemoteBatchRow.ended_at.is_(None)
            )
        )
        if int(pending or 0) + claim.row.requests > MAX_PENDING_REQUESTS:
            return False
        write_remote(connection, claim, step=RemoteStep.CREATING.value, attempts=0)
        return True


def overdue_remote_batches(engine: Engine, late_s: float) -> list[tuple[int, str]]:
    """Number and priority of those that nobody has claimed and whose step is `late_s` late."""
    late = has_passed(RemoteBatchRow.next_look_at, ago_s=late_s, max_ahead_s=_MAX_AHEAD_S)
    overdue = (
        select(RemoteBatchRow.no, BatchRow.priority)
        .join(BatchRow, BatchRow.no == RemoteBatchRow.batch_no)
        .where(RemoteBatchRow.step != literal_column("'done'"), leases.is_free(RemoteBatchRow), late)
    )
    with reading(engine) as connection:
        found = connection.execute(overdue.order_by(RemoteBatchRow.next_look_at).limit(_AT_ONCE)).all()
    return [(no, priority) for no, priority in found]


def defer_remote_batches(engine: Engine, numbers: Sequence[int]) -> None:
    """Those that have a message now are not late for a while."""
    is_free: ColumnElement[bool] = leases.is_free(RemoteBatchRow)
    with writing(engine) as connection:
        these = update(RemoteBatchRow).where(RemoteBatchRow.no.in_(numbers), is_free)
        connection.execute(these.values(next_look_at=db_now()))


# the batch


def tokens_left_of_month(engine: Engine, claim: RemoteClaim) -> int | None:
    """Tokens of the month that are left for the batch's model, less those of jobs that were made since Mistral told
    it. None: it did not tell in this month."""
    model = claim.batch.model.remote_model or ""
    with reading(engine) as connection:
        if (rest := rest_of_month(connection, model)) is None:
            return None
        is_new = or_(
            RemoteBatchRow.made_at > rest.seen_at,
            RemoteBatchRow.step.in_([RemoteStep.UPLOADING.value, RemoteStep.CREATING.value]),
        )
        since = select(func.coalesce(func.sum(RemoteBatchRow.tokens), 0)).where(RemoteBatchRow.model == model, is_new)
        return max(0, (rest.tokens_left_of_month or 0) - int(connection.scalar(since) or 0))
