"""The list of jobs: the latest of every kind, or of one, with the subject and the progress of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, union_all
from sqlalchemy.engine import Connection, RowMapping

from labelmill.contracts.bounds import check_limit, shown
from labelmill.contracts.documents.jobs import JobEntry
from labelmill.contracts.documents.parts import Cost, Estimate
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named
from labelmill.contracts.ids import Kind, kind_of
from labelmill.contracts.job_kinds import KINDS
from labelmill.contracts.near_matches import did_you_mean
from labelmill.contracts.states import TrainingState
from labelmill.core.database import reading
from labelmill.core.database.tables import BatchRow, ModelRow
from labelmill.core.jobs.metadata import has_metadata, metadata_of
from labelmill.core.jobs.tables import TABLE_OF, AnyJobTable
from labelmill.core.money.ledger import costs_of_batches, costs_of_jobs
from labelmill.core.money.prices import PriceList
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.documents import cost_of_batch, cost_of_training, head_of, no_job
from labelmill.services.jobs.progress import BatchSums, batches_of, progress_of, sums_of_batches
from labelmill.services.models import ref_of
from labelmill.services.submissions.idempotency import check_metadata

_IDS_AT_ONCE = 500  #: Ids in one statement.
_STATES = sorted({state.value for kind in KINDS.values() for state in kind.states})


@dataclass(frozen=True)
class JobsRequest:
    """Which jobs to list. `after`: those older than this one. `inner`: batches of trainings and evaluations too.
    `metadata`: those that have all of it."""

    kind: str | None = None
    state: str | None = None
    limit: int = 20
    after: str | None = None
    inner: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise InvalidInput for a kind or a state that does not exist, or a limit that no list has."""
        kinds = [kind.value for kind in Kind]
        if self.kind is not None and self.kind not in kinds:
            raise InvalidInput(f"{named('kind')} is one of {', '.join(kinds)}, not {shown(self.kind)}")
        if self.state is not None and self.state not in _STATES:
            hint = did_you_mean(self.state, _STATES) or f": states are {', '.join(_STATES)}"
            raise InvalidInput(f"no job is ever {shown(self.state)}{hint}", field="state")
        check_limit(self.limit)
        check_metadata(self.metadata)


def list_jobs(context: ServiceContext, request: JobsRequest) -> list[JobEntry]:
    """What `status --json` prints: of each job the head of its document, `name`, `model`, `progress` and `cost`, newest
    first. Raises NotFound, InvalidInput."""
    request.check()
    with reading(context.engine) as connection:
        return _list(connection, request, context.prices)


def _list(connection: Connection, request: JobsRequest, prices: PriceList) -> list[JobEntry]:
    older = _older_than(connection, request.after)
    rows: list[tuple[Kind, RowMapping]] = []
    for kind in Kind if request.kind is None else (Kind(request.kind),):
        table = TABLE_OF[kind]
        columns = (table.__table__, metadata_of(connection, table))
        statement = select(*columns).order_by(table.created_at.desc(), table.id.desc()).limit(request.limit)
        if request.state is not None:
            statement = statement.where(table.state == request.state)
        statement = statement.where(*has_metadata(table, request.metadata))
        if older is not None:
            at, job_id = older
            statement = statement.where(or_(table.created_at < at, and_(table.created_at == at, table.id < job_id)))
        if kind is Kind.BATCH:
            statement = statement.where(BatchRow.purging.is_(False))
            if not request.inner:
                statement = statement.where(_is_asked_for())
        rows += [(kind, row) for row in connection.execute(statement).mappings()]
    rows.sort(key=lambda entry: (entry[1]["created_at"], entry[1]["id"]), reverse=True)
    return _entries(connection, rows[: request.limit], prices)


def _entries(connection: Connection, rows: Sequence[tuple[Kind, RowMapping]], prices: PriceList) -> list[JobEntry]:
    sums = sums_of_batches(connection, [job_id for kind, row in rows for job_id in batches_of(kind, row)])
    models = _models(connection, {row.get("model_no") for _, row in rows})
    batches = {row["id"]: row["owner_id"] for kind, row in rows if kind is Kind.BATCH}
    others = [row["id"] for kind, row in rows if kind in (Kind.TRAINING, Kind.EVALUATION)]
    costs = costs_of_batches(connection, batches) | costs_of_jobs(connection, others)
    return [_document(kind, row, sums, models, costs, prices) for kind, row in rows]


def states_of(context: ServiceContext, job_ids: Sequence[str]) -> dict[str, str]:
    """The state of each job, in one statement for all. Raises NotFound for one that does not exist."""
    states: dict[str, str] = {}
    with reading(context.engine) as connection:
        for some in _some_at_once(job_ids):
            of_kinds = (select(table.id, table.state).where(table.id.in_(ids)) for table, ids in _tables_of(some))
            states.update((row.id, row.state) for row in connection.execute(union_all(*of_kinds)))
    for job_id in job_ids:
        if job_id not in states:
            raise no_job(job_id)
    return states


def entries_of(context: ServiceContext, job_ids: Sequence[str]) -> list[JobEntry]:
    """The entry of each of these jobs that exists, as `list_jobs` has it."""
    rows: list[tuple[Kind, RowMapping]] = []
    with reading(context.engine) as connection:
        for some in _some_at_once(job_ids):
            for table, ids in _tables_of(some):
                statement = select(table.__table__, metadata_of(connection, table)).where(table.id.in_(ids))
                rows += [(table.kind, row) for row in connection.execute(statement).mappings()]
        return _entries(connection, rows, context.prices)


def _some_at_once(job_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (job_ids[start : start + _IDS_AT_ONCE] for start in range(0, len(job_ids), _IDS_AT_ONCE))


def _tables_of(job_ids: Sequence[str]) -> list[tuple[AnyJobTable, list[str]]]:
    """The table of each kind of these jobs, with their ids. Raises NotFound for what is not an id."""
    ids: dict[Kind, list[str]] = {}
    for job_id in job_ids:
        if (kind := kind_of(job_id)) is None:
            raise no_job(job_id)
        ids.setdefault(kind, []).append(job_id)
    return [(TABLE_OF[kind], some) for kind, some in ids.items()]


def _is_asked_for() -> ColumnElement[bool]:
    """The batch was submitted by a person, and is not an inner batch."""
    return BatchRow.owner_id.is_(None)


def _older_than(connection: Connection, job_id: str | None) -> tuple[Any, str] | None:
    if job_id is None:
        return None
    kind = kind_of(job_id)
    at = None
    if kind is not None:
        at = connection.scalar(select(TABLE_OF[kind].created_at).where(TABLE_OF[kind].id == job_id))
    if at is None:
        raise no_job(job_id)
    return at, job_id


def _models(connection: Connection, numbers: set[int | None]) -> dict[int | None, ModelRow]:
    rows = connection.execute(select(ModelRow.__table__).where(ModelRow.no.in_(numbers - {None}))).mappings()
    return {row["no"]: ModelRow(**row) for row in rows}


def _document(
    kind: Kind,
    row: RowMapping,
    sums: dict[str, BatchSums],
    models: dict[int | None, ModelRow],
    costs: dict[str, Cost],
    prices: PriceList,
) -> JobEntry:
    of_model = models.get(row.get("model_no"))
    model = ref_of(of_model) if of_model is not None else None
    name: str | None = row.get("name")
    cost: Cost | Estimate | None = None
    if kind is Kind.DATASET:
        name = f"{row['name']}@{row['version']}" if row["version"] else row["name"]
    elif kind is Kind.TRAINING:
        cost = cost_of_training(row, costs) or row["estimate"]
        model = model if row["state"] == TrainingState.SUCCEEDED.value else None
    elif kind is Kind.EVALUATION:
        name, cost = f"{row['dataset_ref']} {row['split']}", costs.get(row["id"])
    elif kind is Kind.BATCH:
        before_the_ledger = cost_of_batch(models[row["model_no"]], sums[row["id"]], row["duplicates"], prices)
        cost = costs.get(row["id"], before_the_ledger)
    progress = progress_of(kind, row, sums)
    return {**head_of(kind, row), "name": name, "model": model, "progress": progress, "cost": cost}
