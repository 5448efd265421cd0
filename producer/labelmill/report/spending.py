"""What a job has cost: by model and mode, and how it grew."""

from __future__ import annotations

from datetime import datetime
from itertools import accumulate

from sqlalchemy import Integer, cast, func, select
from sqlalchemy.engine import Connection

from labelmill.contracts.ids import Kind, kind_of
from labelmill.core.database.tables import BatchRow, LedgerRow
from labelmill.core.money.prices import CURRENCY
from labelmill.report.parts import Curves, Grid, Heading, Part

_POINTS = 200  #: Of the curve: more are not seen.


def parts_of(connection: Connection, job_id: str) -> list[Part]:
    """The part of a job's page about money; nothing where nothing was spent."""
    payer = LedgerRow.job_id == job_id
    if kind_of(job_id) is Kind.BATCH:
        owner = connection.scalar(select(BatchRow.owner_id).where(BatchRow.id == job_id))
        payer = (LedgerRow.job_id == (owner or job_id)) & (LedgerRow.batch_id == job_id)
    rows = connection.execute(
        select(
            LedgerRow.model,
            LedgerRow.mode,
            func.sum(LedgerRow.requests),
            func.sum(LedgerRow.input_tokens),
            func.sum(LedgerRow.cached_tokens),
            func.sum(LedgerRow.output_tokens),
            func.sum(LedgerRow.amount),
            LedgerRow.currency,
            func.max(cast(LedgerRow.estimated, Integer)),
        )
        .where(payer)
        .group_by(LedgerRow.model, LedgerRow.mode, LedgerRow.currency)
        .order_by(LedgerRow.model, LedgerRow.mode)
    ).all()
    if not rows:
        return []
    headings = ("model", "mode", "requests", "input tokens", "of them cached", "output tokens", "cost", "tokens are")
    table = [
        (
            model,
            mode,
            *map(int, counts),
            "no price is known" if amount is None else f"{amount:.4g} {currency}",
            "counted here" if estimated else "as Mistral reports them",
        )
        for model, mode, *counts, amount, currency, estimated in rows
    ]
    paid = connection.execute(
        select(LedgerRow.at, LedgerRow.amount)
        .where(payer, LedgerRow.currency == CURRENCY, LedgerRow.amount.is_not(None))
        .order_by(LedgerRow.at, LedgerRow.no)
    )
    return [Heading("Cost"), Grid(headings, table), *_growth([(at, amount or 0.0) for at, amount in paid])]


def _growth(paid: list[tuple[datetime, float]]) -> list[Part]:
    if len(paid) < 2:
        return []
    began = paid[0][0]
    points = [
        ((at - began).total_seconds() / 60, total)
        for (at, _), total in zip(paid, accumulate(amount for _, amount in paid), strict=True)
    ]
    last = len(points) - 1
    shown = [points[at] for at in sorted({*range(0, last, max(1, last // _POINTS)), last})]
    return [Curves("cost", "Cost so far", {"cost": shown}, ("minutes since the first request", CURRENCY))]
