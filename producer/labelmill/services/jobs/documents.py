"""Status documents: the output of `status ID --json` for every kind of job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.engine import Connection, RowMapping

from labelmill.contracts.bounds import shown
from labelmill.contracts.documents.jobs import (
    BatchDocument,
    DatasetDocument,
    EvaluationDocument,
    JobDocument,
    JobHead,
    RunningHead,
    TrainingDocument,
)
from labelmill.contracts.documents.parts import Cost, Estimate, RowCounts
from labelmill.contracts.errors import NotFound
from labelmill.contracts.ids import Kind, kind_of
from labelmill.contracts.job_kinds import ENDED
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.states import BatchState, TrainingState
from labelmill.core.database import reading
from labelmill.core.database.tables import (
    BatchRow,
    DuplicateRow,
    ModelRow,
    RowErrorRow,
)
from labelmill.core.jobs.metadata import in_order, metadata_of
from labelmill.core.jobs.tables import TABLE_OF
from labelmill.core.money.costs import cost_of_texts, priced_model
from labelmill.core.money.estimates import estimate_of_texts
from labelmill.core.money.ledger import costs_of_batches, costs_of_jobs
from labelmill.core.money.prices import LISTED, PriceList
from labelmill.core.reported_limits import rest_of_month
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.progress import BatchSums, batches_of, progress_of, sums_of_batches
from labelmill.services.jobs.remote_jobs import remote_jobs_of, remote_phase
from labelmill.services.jobs.requests import JobRequest
from labelmill.services.jobs.waiting_for import waiting_for

_IDS_AT_ONCE = 500  #: Ids in one statement.


def job_status(context: ServiceContext, request: JobRequest) -> JobDocument:
    """Everything about one job; a dataset's files as paths in the caller's data folder. Raises NotFound."""
    (document,) = jobs_status(context, [request.job_id])
    return document


def jobs_status(context: ServiceContext, job_ids: Sequence[str]) -> list[JobDocument]:
    """Everything about each of these jobs, as `job_status`. What many batches have in common is read at once: a number
    of statements that does not grow with theirs. Raises NotFound."""
    with reading(context.engine) as connection:
        documents = _status_documents(connection, job_ids, context.prices)
    for document in documents:
        if document["kind"] == "dataset" and (files := document["files"]):
            document["files"] = {name: context.storage.shown(reference) for name, reference in files.items()}
    return documents


def status_document(connection: Connection, job_id: str, prices: PriceList = LISTED) -> JobDocument:
    """Everything about one job; `prices` make the cost of a batch. Raises NotFound."""
    (document,) = _status_documents(connection, [job_id], prices)
    return document


def _status_documents(connection: Connection, job_ids: Sequence[str], prices: PriceList) -> list[JobDocument]:
    rows = _rows_of(connection, job_ids)
    shared = _Shared.of(connection, rows.values())
    documents: list[JobDocument] = []
    for kind, row in map(rows.__getitem__, job_ids):
        head: RunningHead = {
            **head_of(kind, row),
            "progress": progress_of(kind, row, shared.sums),
            "waiting_for": waiting_for(connection, kind, row),
        }
        documents.append(_WHOLE[kind](_Job(connection, row, head, prices, shared)))
    return documents


def _rows_of(connection: Connection, job_ids: Sequence[str]) -> dict[str, tuple[Kind, RowMapping]]:
    ids_of: dict[Kind, list[str]] = {}
    for job_id in dict.fromkeys(job_ids):
        if (kind := kind_of(job_id)) is None:
            raise no_job(job_id)
        ids_of.setdefault(kind, []).append(job_id)
    rows: dict[str, tuple[Kind, RowMapping]] = {}
    for kind, ids in ids_of.items():
        table = TABLE_OF[kind]
        for start in range(0, len(ids), _IDS_AT_ONCE):
            wanted = table.id.in_(ids[start : start + _IDS_AT_ONCE])
            found = connection.execute(select(table.__table__, metadata_of(connection, table)).where(wanted))
            rows |= {row["id"]: (kind, row) for row in found.mappings() if not row.get("purging")}
    for job_id in job_ids:
        if job_id not in rows:
            raise no_job(job_id)
    return rows


@dataclass(frozen=True)
class _Shared:
    """What the documents of several jobs are made from, read once for all of them."""

    connection: Connection
    sums: Mapping[str, BatchSums]  #: Of the batches that do the jobs' work.
    costs: Mapping[str, Cost]  #: Of the batches among the jobs, by the ledger.
    _models: dict[int, RowMapping] = field(default_factory=dict)
    _left_of_month: dict[str, int | None] = field(default_factory=dict)

    @classmethod
    def of(cls, connection: Connection, jobs: Iterable[tuple[Kind, RowMapping]]) -> _Shared:
        listed = list(jobs)
        owner_of = {row["id"]: row["owner_id"] for kind, row in listed if kind is Kind.BATCH}
        return cls(
            connection,
            sums_of_batches(connection, [batch_id for kind, row in listed for batch_id in batches_of(kind, row)]),
            costs_of_batches(connection, owner_of),
        )

    def model(self, model_no: int) -> RowMapping:
        """The row of a model version."""
        if model_no not in self._models:
            statement = select(ModelRow.__table__).where(ModelRow.no == model_no)
            self._models[model_no] = self.connection.execute(statement).mappings().one()
        return self._models[model_no]

    def left_of_month(self, model: str | None) -> int | None:
        """The tokens that Mistral grants for its model in the rest of the month; None: unknown."""
        if not model:
            return None
        if model not in self._left_of_month:
            rest = rest_of_month(self.connection, model)
            self._left_of_month[model] = rest.tokens_left_of_month if rest is not None else None
        return self._left_of_month[model]


@dataclass(frozen=True)
class _Job:
    """The data from which a document is made."""

    connection: Connection
    row: RowMapping
    head: RunningHead
    prices: PriceList
    shared: _Shared


def no_job(job_id: str) -> NotFound:
    """The error for an id that no job has."""
    return NotFound(f"no job has the id {shown(job_id)}; `labelmill status` lists the latest")


def head_of(kind: Kind, row: RowMapping) -> JobHead:
    """The fields that every job's document begins with."""
    return {
        "id": row["id"],
        "kind": kind.value,
        "state": row["state"],
        "created_at": _moment(row["created_at"]),
        "finished_at": _moment(row["finished_at"]),
        "error": row["error"],
        "error_code": row["error_code"],
        "metadata": in_order(row["metadata"]),
    }


def _moment(value: datetime | None) -> str | None:
    return value.isoformat(timespec="milliseconds") if value else None


def _dataset(job: _Job) -> DatasetDocument:
    row = job.row
    return {
        **job.head,  # type: ignore[typeddict-item] # its kind is that of the row
        "name": row["name"],
        "version": row["version"],
        "splits": row["splits"],
        "labels": row["labels"],
        "dropped": row["dropped"],
        "fingerprint": row["fingerprint"],
        "files": row["files"],
        "repeats": row["repeats"],
        "report": row["report"],
    }


def _training(job: _Job) -> TrainingDocument:
    row = job.row
    has_succeeded = row["state"] == TrainingState.SUCCEEDED.value
    return {
        **job.head,  # type: ignore[typeddict-item] # its kind is that of the row
        # a version that is still being tuned is not yet the training's result
        "model": model_ref(job.connection, row["model_no"]) if has_succeeded else None,
        "name": row["name"],
        "dataset": row["dataset_id"],
        "method": row["method"],
        "remote_job": row["remote_job"],
        "remote_status": row["remote_status"],
        "remote_model": row["remote_model"],
        "tokens_left_of_month": job.shared.left_of_month(_model_of_batch(job.connection, row["batch_id"])),
        "estimate": row["estimate"],
        "max_cost": row["max_cost"],
        "cost": cost_of_training(row, costs_of_jobs(job.connection, [row["id"]])),
        "checkpoints": row["checkpoints"] or [],
        "batch": row["batch_id"],
        "details": row["details"],
    }


def _model_of_batch(connection: Connection, batch_id: str | None) -> str | None:
    """What a batch asks Mistral for; None: there is no batch."""
    if batch_id is None:
        return None
    asked = select(ModelRow.remote_model).join(BatchRow, BatchRow.model_no == ModelRow.no)
    return connection.scalar(asked.where(BatchRow.id == batch_id))


def cost_of_training(row: RowMapping, costs: Mapping[str, Cost]) -> Cost | None:
    """By the ledger; a fine-tuning has the price that Mistral named for it. `costs`: of jobs, by the ledger."""
    recorded: Cost | None = row["cost"]
    return recorded if row["method"] == "factory" else costs.get(row["id"], recorded)


def model_ref(connection: Connection, model_no: int) -> str:
    """`intents@1`, or a raw id as it is."""
    columns = select(ModelRow.name, ModelRow.version)
    return _ref(connection.execute(columns.where(ModelRow.no == model_no)).mappings().one())


def _ref(model: RowMapping) -> str:
    return f"{model['name']}@{model['version']}" if model["version"] else str(model["name"])


def _counts(batch: RowMapping, sums: BatchSums) -> RowCounts:
    """The rows of a batch by state; `submitted` is always the sum of the others (one statement reads all)."""
    left = sums.rows - sums.done
    cancelled = left if batch["state"] == BatchState.CANCELLED.value else 0
    return {
        "submitted": sums.rows,
        "labelled": sums.labelled,
        "abstained": sums.abstained,
        "failed": sums.failed,
        "cancelled": cancelled,
        "pending": left - cancelled,
    }


def _failures(connection: Connection, batch: RowMapping) -> dict[str, int]:
    """Error code → number of rows, including rows that repeat a failed one; the most frequent first."""
    own = select(RowErrorRow.code, func.count()).where(RowErrorRow.batch_no == batch["no"])
    repeated = own.join(
        DuplicateRow, (DuplicateRow.batch_no == RowErrorRow.batch_no) & (DuplicateRow.first_row == RowErrorRow.row)
    )
    counts: Counter[str] = Counter()
    for statement in (own, repeated) if batch["duplicates"] else (own,):
        for code, count in connection.execute(statement.group_by(RowErrorRow.code)):
            counts[code] += count
    return dict(counts.most_common())


def _batch(job: _Job) -> BatchDocument:
    connection, row = job.connection, job.row
    sums = job.shared.sums[row["id"]]
    rows = _counts(row, sums)
    model = job.shared.model(row["model_no"])
    document: BatchDocument = {
        **job.head,  # type: ignore[typeddict-item] # its kind is that of the row
        "model": _ref(model),
        "remote_model": model["remote_model"],
        "tokens_left_of_month": job.shared.left_of_month(model["remote_model"]),
        "mode": row["mode"],
        "deadline_at": _moment(row["deadline_at"]),
        "mode_reason": row["mode_reason"],
        "remote_jobs": remote_jobs_of(connection, row),
        "priority": row["priority"],
        "rows": rows,
        "duplicates": row["duplicates"],
        "skipped": row["skipped"],
        "cached": sums.cached,
        "requests": sums.requests,
        "tokens": sums.tokens,
        "estimate": None,
        "max_cost": row["max_cost"],
        "cost": None,
        "started_at": _moment(row["started_at"]),
        "failures": _failures(connection, row) if rows["failed"] and row["state"] in ENDED else {},
    }
    if document["progress"] is not None and (phase := remote_phase(connection, row)) is not None:
        document["progress"] = {**document["progress"], "phase": phase}
    by_ledger = job.shared.costs.get(row["id"])
    document["cost"] = by_ledger or cost_of_batch(ModelRow(**model), sums, row["duplicates"], job.prices)
    document["estimate"] = _estimate(row, model, job.prices)
    return document


def _estimate(row: RowMapping, model: RowMapping, prices: PriceList) -> Estimate | None:
    """Of all of its texts that repeat no other; in mode `auto`, as if all were sent in realtime."""
    if row["text_tokens"] is None or not row["rows"]:
        return None
    texts = row["rows"] - row["duplicates"]
    return estimate_of_texts(
        model["remote_model"] or "",
        model["recipe"] or {},
        LabelSchema.from_json(model["label_schema"] or []),
        prices,
        texts=texts,
        tokens=row["text_tokens"] * texts // row["rows"],
        mode=row["mode"],
    )


def cost_of_batch(model: ModelRow, sums: BatchSums, duplicates: int, prices: PriceList) -> Cost | None:
    """The cost of a batch from before the ledger: of the tokens that Mistral reported, by the price list. None where it
    reported none (as for classifications), or the price is not known."""
    if not sums.tokens:
        return None
    priced = priced_model(model.remote_model or "", prices)
    texts = max(0, sums.labelled + sums.abstained - duplicates - sums.cached)
    schema = LabelSchema.from_json(model.label_schema or [])
    cost = cost_of_texts(priced, model.method, sums.tokens, texts, schema, prices)
    if cost is None:
        return None
    return {
        "amount": cost["amount"],
        "currency": cost["currency"],
        "estimated": True,
        "prices_as_of": prices.as_of(priced),
    }


def _evaluation(job: _Job) -> EvaluationDocument:
    row = job.row
    model = job.shared.model(row["model_no"])
    return {
        **job.head,  # type: ignore[typeddict-item] # its kind is that of the row
        "model": _ref(model),
        "remote_model": model["remote_model"],
        "tokens_left_of_month": job.shared.left_of_month(model["remote_model"]),
        "dataset": row["dataset_ref"],
        "split": row["split"],
        "batch": row["batch_id"],
        "calibration_batch": row["calibration_batch_id"],
        "max_cost": row["max_cost"],
        "cost": costs_of_jobs(job.connection, [row["id"]]).get(row["id"]),
        "metrics": row["metrics"],
        "summary": row["summary"],
    }


_WHOLE: dict[Kind, Callable[[_Job], JobDocument]] = {
    Kind.DATASET: _dataset,
    Kind.TRAINING: _training,
    Kind.BATCH: _batch,
    Kind.EVALUATION: _evaluation,
}
