"""What a job that has ended came to: one line in the log of the worker that ended it."""

from __future__ import annotations

from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import LabelmillError
from labelmill.contracts.label_schema import LabelSchema
from labelmill.core.database import reading
from labelmill.core.database.tables import BatchRow, ChunkRow, ModelRow
from labelmill.core.money.costs import cost_of_texts
from labelmill.core.money.ledger import costs_of_batches
from labelmill.core.money.prices import PriceList
from labelmill.core.settings import load_settings

log = structlog.get_logger()

_SUMS = ("rows", "labelled", "abstained", "failed", "requests", "tokens", "cached")
#: Of the values that a job ends with, those that say what it came to.
_TOLD = ("splits", "cost", "error")


def log_ended_job(job_id: str, state: str, values: dict[str, Any]) -> None:
    """A preparation, a training or an evaluation has ended; `values`: what was written of it."""
    told = {name: values[name] for name in _TOLD if values.get(name) is not None}
    log.info("job ended", job_id=job_id, state=state, **told)


def log_ended_batch(engine: Engine, batch_id: str) -> None:
    """A batch has ended: its rows, tokens and cost. A database that has gone meanwhile costs this line."""
    try:
        with reading(engine) as connection:
            totals = batch_totals(connection, batch_id, PriceList.of(load_settings()))
    except LabelmillError:
        return  # the batch has ended all the same
    log.info("job ended", **totals)


def batch_totals(connection: Connection, batch_id: str, prices: PriceList) -> dict[str, Any]:
    """What a batch came to: how its rows stand, what was sent for them, and what that has cost by the ledger, or for
    one from before the ledger by the price list."""
    batch = connection.execute(
        select(
            BatchRow.no,
            BatchRow.state,
            BatchRow.error,
            BatchRow.duplicates,
            BatchRow.owner_id,
            ModelRow.remote_model,
            ModelRow.method,
            ModelRow.label_schema,
        )
        .join(ModelRow, ModelRow.no == BatchRow.model_no)
        .where(BatchRow.id == batch_id)
    ).one()
    sums = [func.coalesce(func.sum(getattr(ChunkRow, name)), 0) for name in _SUMS]
    counted = connection.execute(select(*sums).where(ChunkRow.batch_no == batch.no)).one()
    found: dict[str, Any] = {"job_id": batch_id, "state": batch.state} | dict(
        zip(_SUMS, map(int, counted), strict=True)
    )
    texts = max(0, found["labelled"] + found["abstained"] - batch.duplicates - found["cached"])
    schema = LabelSchema.from_json(batch.label_schema or [])
    paid = costs_of_batches(connection, {batch_id: batch.owner_id}).get(batch_id)
    if paid is not None and paid["amount"] is not None:
        found["cost"] = {"amount": paid["amount"], "currency": paid["currency"]}
    elif found["tokens"] and (
        cost := cost_of_texts(batch.remote_model or "", batch.method, found["tokens"], texts, schema, prices)
    ):
        found["cost"] = cost
    if batch.error:
        found["error"] = batch.error
    return found
