"""What was paid for, in SQL: written in the transaction of the answers, a line for each job, model, mode and price."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import bindparam, insert
from sqlalchemy.engine import Connection

from labelmill.contracts.usage import Usage
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import LedgerRow, utc_now
from labelmill.core.money.costs import priced_model
from labelmill.core.money.nanos import nanos
from labelmill.core.money.prices import CURRENCY, PriceList

FINE_TUNING = "fine-tuning"  #: The mode of what is not paid by the token.

_COLUMNS = [column.key for column in LedgerRow.__table__.columns if not column.primary_key]
#: It returns a number because `rows_at_once` wants a row; compiled once, it costs half of the CPU of a plain insert.
_INSERT = insert(LedgerRow).values({name: bindparam(name) for name in _COLUMNS}).returning(LedgerRow.no)


class Charged(NamedTuple):
    """Usage, and who pays: `job_id`, the job that was asked for, by requests of the batch `batch_id`."""

    job_id: str
    batch_id: str | None
    usage: Usage


class _Line(NamedTuple):
    job_id: str
    batch_id: str | None
    model: str
    mode: str
    estimated: bool


def write_lines(connection: Connection, charges: Iterable[Charged], prices: PriceList) -> None:
    """Add what was used to the ledger, within the connection's transaction: usually one line."""
    sums: dict[_Line, list[int]] = {}
    for job_id, batch_id, usage in charges:
        line = _Line(job_id, batch_id, usage.model, usage.mode, usage.is_estimated)
        total = sums.get(line)
        if total is None:
            total = sums[line] = [0, 0, 0, 0]
        total[0] += usage.requests
        total[1] += usage.input_tokens
        total[2] += usage.output_tokens
        total[3] += usage.cached_tokens
    if sums:
        lines = [_values(line, total, prices) for line, total in sums.items()]
        dialect_of(connection).rows_at_once(connection, _INSERT, lines)


def cost_in_nanos(usage: Usage, prices: PriceList) -> int:
    """What usage costs, in billionths; 0 where no price is known."""
    price = prices.price_of(priced_model(usage.model, prices))
    if price is None:
        return 0
    return nanos(price.amount(usage.input_tokens, usage.output_tokens, usage.cached_tokens, mode=usage.mode))


def write_price(connection: Connection, job_id: str, model: str, amount: float, currency: str) -> None:
    """Add a price that Mistral named for a fine-tuning, in its own currency."""
    at = utc_now()
    nothing = dict.fromkeys(("input_tokens", "output_tokens", "cached_tokens"), 0)
    paid = {"job_id": job_id, "model": model, "mode": FINE_TUNING, "requests": 1, "amount": amount}
    line = {"at": at, "day": at.date().isoformat(), "currency": currency, "estimated": True}
    connection.execute(insert(LedgerRow).values(paid | line | nothing))


def _values(line: _Line, total: list[int], prices: PriceList) -> dict[str, Any]:
    requests, asked, written, cached = total
    at, priced = utc_now(), priced_model(line.model, prices)
    price = prices.price_of(priced)
    return {
        **line._asdict(),
        "at": at,
        "day": at.date().isoformat(),
        "requests": requests,
        "input_tokens": asked,
        "output_tokens": written,
        "cached_tokens": cached,
        "amount": None if price is None else round(price.amount(asked, written, cached, mode=line.mode), 9),
        "currency": CURRENCY,
        "input_price": price and price.input,
        "output_price": price and price.output,
        "prices_as_of": prices.as_of(priced) if price else None,
    }
