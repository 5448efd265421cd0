"""What was spent, summed from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from operator import itemgetter
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Integer, cast, func, select
from sqlalchemy.engine import Connection

from labelmill.contracts.bounds import shown
from labelmill.contracts.documents.money import SpendDocument, SpendRow, SpentInCurrency
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named
from labelmill.core.database import reading
from labelmill.core.database.tables import LedgerRow
from labelmill.core.money.prices import CURRENCY
from labelmill.core.remote_models import MOVES, Listed, meaning_of, read_list
from labelmill.services.context import ServiceContext

if TYPE_CHECKING:
    from sqlalchemy.orm import InstrumentedAttribute

_KEYS: dict[str, InstrumentedAttribute[str] | ColumnElement[str]] = {
    "job": LedgerRow.job_id,
    "model": LedgerRow.model,
    "day": LedgerRow.day,
    "month": func.substr(LedgerRow.day, 1, 7),
}
_BY_TIME = ("day", "month")  #: Shown in the order of time; the others by amount.


@dataclass(frozen=True)
class SpendRequest:
    """What was spent on the days from `since` to `until`, both included, in UTC: `2026-11-27`."""

    by: str = "month"
    since: str | None = None
    until: str | None = None

    def check(self) -> None:
        """Raise InvalidInput for an unknown way to group, or for what is no date."""
        if self.by not in _KEYS:
            raise InvalidInput(f"{named('by')} is one of {', '.join(_KEYS)}, not {shown(self.by)}")
        days = [(name, _day(name, given)) for name, given in (("since", self.since), ("until", self.until)) if given]
        if len(days) == 2 and days[0][1] > days[1][1]:
            raise InvalidInput(f"{named('since')} is later than {named('until')}", field="since")


def _day(field: str, given: str) -> date:
    try:
        day = date.fromisoformat(given)
        if day.isoformat() == given:  # days are compared as text, and 2026-W48-5 is a day in ISO 8601 too
            return day
    except ValueError:
        pass
    raise InvalidInput(f"{named(field)} is a day such as 2026-11-27, not {shown(given)}")


def spend(context: ServiceContext, request: SpendRequest) -> SpendDocument:
    """The sums of the ledger. A job's inner batches count as the job. Raises InvalidInput."""
    request.check()
    with reading(context.engine) as connection:
        sums = _sums(connection, request)
    main = sums.pop(CURRENCY, None) or SpentInCurrency(currency=CURRENCY, total=0.0, rows=[])
    return {**main, "other_currencies": [sums[currency] for currency in sorted(sums)]}


def _sums(connection: Connection, request: SpendRequest) -> dict[str, SpentInCurrency]:
    key = _KEYS[request.by].label("key")
    amount = func.sum(LedgerRow.amount).label("amount")
    statement = select(
        LedgerRow.currency,
        key,
        func.sum(LedgerRow.requests),
        func.sum(LedgerRow.input_tokens + LedgerRow.output_tokens),
        func.sum(LedgerRow.cached_tokens),
        amount,
        func.max(cast(LedgerRow.estimated, Integer)),
    ).group_by(LedgerRow.currency, key)
    if request.since is not None:
        statement = statement.where(LedgerRow.day >= request.since)
    if request.until is not None:
        statement = statement.where(LedgerRow.day <= request.until)
    sums: dict[str, SpentInCurrency] = {}
    for currency, name, requests, tokens, cached, paid, estimated in connection.execute(statement):
        row: SpendRow = {
            "key": name,
            "requests": int(requests),
            "tokens": int(tokens),
            "cached_tokens": int(cached),
            "amount": None if paid is None else round(paid, 8),
            "estimated": bool(estimated),
        }
        sums.setdefault(currency, {"currency": currency, "total": 0.0, "rows": []})["rows"].append(row)
    for spent in sums.values():
        if request.by == "model":
            spent["rows"] = _by_dated_name(spent["rows"], read_list(connection))
        spent["rows"].sort(key=itemgetter("key"))
        if request.by not in _BY_TIME:
            spent["rows"].sort(key=lambda row: -(row["amount"] or 0))
        spent["total"] = round(sum(row["amount"] or 0 for row in spent["rows"]), 8)
    return sums


def _by_dated_name(rows: Sequence[SpendRow], models: Sequence[Listed]) -> list[SpendRow]:
    """One row for each model: a training asks `mistral-embed`, and its version the dated name. A name that ends in
    `-latest` may have meant another model when it was paid for: it stays."""
    merged: dict[str, SpendRow] = {}
    for row in rows:
        key = row["key"] if row["key"].endswith(MOVES) else meaning_of(row["key"], models)
        other = merged.get(key)
        if other is None:
            merged[key] = {**row, "key": key}
            continue
        for name in ("requests", "tokens", "cached_tokens"):
            other[name] += row[name]
        amounts = [amount for amount in (other["amount"], row["amount"]) if amount is not None]
        other["amount"] = round(sum(amounts), 8) if amounts else None
        other["estimated"] = other["estimated"] or row["estimated"]
    return list(merged.values())
