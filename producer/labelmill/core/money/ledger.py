"""What jobs have cost, by the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, cast, func, select
from sqlalchemy.engine import Connection

from labelmill.contracts.documents.parts import Cost
from labelmill.core.database.tables import LedgerRow

if TYPE_CHECKING:
    from sqlalchemy.orm import InstrumentedAttribute

_IDS_AT_ONCE = 500  #: Ids in one statement.


def costs_of_jobs(connection: Connection, ids: Sequence[str]) -> dict[str, Cost]:
    """Job → its cost, with that of the batches that it runs for itself. Jobs without a line in the ledger are left
    out."""
    return _costs(connection, LedgerRow.job_id, ids)


def costs_of_batches(connection: Connection, owner_of: dict[str, str | None]) -> dict[str, Cost]:
    """Batch → its own cost. `owner_of`: batch → the training or evaluation that it runs for."""
    payers = sorted({owner or batch for batch, owner in owner_of.items()})
    costs = _costs(connection, LedgerRow.batch_id, payers)
    return {batch: cost for batch, cost in costs.items() if batch in owner_of}


def _costs(connection: Connection, key: InstrumentedAttribute[Any], ids: Sequence[str]) -> dict[str, Cost]:
    costs: dict[str, Cost] = {}
    for start in range(0, len(ids), _IDS_AT_ONCE):
        statement = (
            select(
                key,
                LedgerRow.currency,
                func.sum(LedgerRow.amount),
                func.max(cast(LedgerRow.estimated, Integer)),
                func.max(LedgerRow.prices_as_of),
                func.sum(LedgerRow.input_tokens + LedgerRow.output_tokens),
                func.count() - func.count(LedgerRow.amount),
            )
            .where(LedgerRow.job_id.in_(ids[start : start + _IDS_AT_ONCE]), key.is_not(None))
            .group_by(key, LedgerRow.currency)
            .order_by(LedgerRow.currency.desc())  # of a job that paid in two, the one of the price list
        )
        for job_id, currency, amount, estimated, as_of, tokens, unpriced in connection.execute(statement):
            costs.setdefault(
                job_id,
                {
                    "amount": None if unpriced else round(amount, 8),
                    "currency": currency,
                    "estimated": bool(estimated),
                    "prices_as_of": as_of,
                    "tokens": int(tokens),
                },
            )
    return costs
