"""Status documents: what `status ID --json` holds for every kind of job."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.engine import Connection, RowMapping

from labelmill.contracts.bounds import shown
from labelmill.contracts.errors import NotFound
from labelmill.contracts.ids import Kind, kind_of
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.money.costs import cost_of_texts, priced_model
from labelmill.contracts.money.prices import LISTED, PriceList
from labelmill.contracts.states import BatchState, TrainingState
from labelmill.contracts.tables import BatchRow, ChunkRow, DatasetRow, EvaluationRow, ModelRow, TrainingRow

TABLE_OF: dict[Kind, type[DatasetRow | TrainingRow | BatchRow | EvaluationRow]] = {
    Kind.DATASET: DatasetRow,
    Kind.TRAINING: TrainingRow,
    Kind.BATCH: BatchRow,
    Kind.EVALUATION: EvaluationRow,
}


def status_document(connection: Connection, job_id: str, prices: PriceList = LISTED) -> dict[str, Any]:
    """Everything about one job; `prices` make the cost of a batch. Raises NotFound."""
    kind = kind_of(job_id)
    row = None
    if kind is not None:
        table = TABLE_OF[kind]
        row = connection.execute(select(table.__table__).where(table.id == job_id)).mappings().first()
    if kind is None or row is None:
        raise NotFound(f"no job has the id {shown(job_id)}; `labelmill status` lists the latest")
    document = _head(kind, row) | _DETAILS[kind](connection, row)
    if kind is Kind.BATCH:
        document["cost"] = _batch_cost(connection, row, document, prices)
    return document


def recent_jobs(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """`id`, `kind`, `state`, `created_at`, `finished_at` and `error` of the latest jobs, newest first."""
    found: list[dict[str, Any]] = []
    for kind, table in TABLE_OF.items():
        statement = select(table.__table__).order_by(table.no.desc()).limit(limit)
        found += [_head(kind, row) for row in connection.execute(statement).mappings()]
    return sorted(found, key=lambda document: str(document["created_at"]), reverse=True)[:limit]


def _head(kind: Kind, row: RowMapping) -> dict[str, Any]:
    return {
        "id": row["id"],
        "kind": kind.value,
        "state": row["state"],
        "created_at": _moment(row["created_at"]),
        "finished_at": _moment(row["finished_at"]),
        "error": row["error"],
        "error_code": row["error_code"],
    }


def _moment(value: datetime | None) -> str | None:
    return value.isoformat(timespec="milliseconds") if value else None


def _dataset(connection: Connection, row: RowMapping) -> dict[str, Any]:
    del connection
    names = ("name", "version", "splits", "labels", "dropped", "fingerprint", "files", "repeats", "report")
    return {name: row[name] for name in names}


def _training(connection: Connection, row: RowMapping) -> dict[str, Any]:
    return {
        # a version that is still being tuned is not yet the training's result
        "model": model_ref(connection, row["model_no"]) if row["state"] == TrainingState.SUCCEEDED.value else None,
        "name": row["name"],
        "dataset": row["dataset_id"],
        "method": row["method"],
        "remote_job": row["remote_job"],
        "remote_status": row["remote_status"],
        "remote_model": row["remote_model"],
        "estimate": row["estimate"],
        "max_cost": row["max_cost"],
        "cost": row["cost"],
        "checkpoints": row["checkpoints"] or [],
        "batch": row["batch_id"],
        "details": row["details"],
    }


def model_ref(connection: Connection, model_no: int) -> str:
    """`intents@1`, or a raw id as it is."""
    model = connection.execute(select(ModelRow.name, ModelRow.version).where(ModelRow.no == model_no)).one()
    return f"{model.name}@{model.version}" if model.version else str(model.name)


def _sums(batch_no: int) -> Select[Any]:
    names = ("labelled", "abstained", "failed", "requests", "tokens", "rows", "cached")
    columns = [func.coalesce(func.sum(getattr(ChunkRow, name)), 0).label(name) for name in names]
    return select(*columns).where(ChunkRow.batch_no == batch_no)


def _counts(batch: RowMapping, sums: RowMapping) -> dict[str, int]:
    """How the rows of a batch stand; `submitted` is the sum of the others at every moment (one statement reads all)."""
    submitted = int(sums["rows"])
    ended = {name: int(sums[name]) for name in ("labelled", "abstained", "failed")}
    left = submitted - sum(ended.values())
    cancelled = left if batch["state"] == BatchState.CANCELLED.value else 0
    return {"submitted": submitted, **ended, "cancelled": cancelled, "pending": left - cancelled}


def _batch(connection: Connection, row: RowMapping) -> dict[str, Any]:
    sums = connection.execute(_sums(row["no"])).mappings().one()
    return {
        "model": model_ref(connection, row["model_no"]),
        "mode": row["mode"],
        "priority": row["priority"],
        "rows": _counts(row, sums),
        "duplicates": row["duplicates"],
        "skipped": row["skipped"],
        "cached": int(sums["cached"]),
        "requests": int(sums["requests"]),
        "tokens": int(sums["tokens"]),
        "cost": None,
        "started_at": _moment(row["started_at"]),
    }


def _batch_cost(
    connection: Connection, row: RowMapping, document: dict[str, Any], prices: PriceList
) -> dict[str, Any] | None:
    """What the tokens that Mistral reported cost by the price list: an estimate. None where it reported none (of
    classifications it does not), or the price is not known."""
    model = connection.execute(
        select(ModelRow.remote_model, ModelRow.method, ModelRow.label_schema).where(ModelRow.no == row["model_no"])
    ).one()
    if not document["tokens"]:
        return None
    priced = priced_model(model.remote_model or "", prices)
    answered = document["rows"]["labelled"] + document["rows"]["abstained"]
    texts = max(0, answered - document["duplicates"] - document["cached"])
    schema = LabelSchema.from_json(model.label_schema or [])
    cost = cost_of_texts(priced, model.method, document["tokens"], texts, schema, prices)
    return cost and cost | {"estimated": True, "prices_as_of": prices.as_of(priced)}


def _evaluation(connection: Connection, row: RowMapping) -> dict[str, Any]:
    return {
        "model": model_ref(connection, row["model_no"]),
        "dataset": row["dataset_ref"],
        "split": row["split"],
        "batch": row["batch_id"],
        "calibration_batch": row["calibration_batch_id"],
        "metrics": row["metrics"],
        "summary": row["summary"],
    }


_DETAILS: dict[Kind, Callable[[Connection, RowMapping], dict[str, Any]]] = {
    Kind.DATASET: _dataset,
    Kind.TRAINING: _training,
    Kind.BATCH: _batch,
    Kind.EVALUATION: _evaluation,
}
