"""What Mistral told last of each model's limits, kept in SQL: for mode auto, quotes, and the rest of a month, which are
asked for while no request is under way."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection

from labelmill.core.database.tables import ReportedLimitsRow

_KEPT_S = 7 * 24 * 3600  #: Limits that were told longer ago say nothing: a plan may have changed.


@dataclass(frozen=True, slots=True)
class KnownLimits:
    """Of one model; None: not told. `seen_at`: seconds since 1970."""

    seen_at: float
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_left_of_month: int | None = None


def keep_limits(connection: Connection, told: Mapping[str, KnownLimits]) -> None:
    """Keep what is newer than what is kept. One process of the fleet does so at a time."""
    columns = select(ReportedLimitsRow.model, ReportedLimitsRow.seen_at).where(ReportedLimitsRow.model.in_(told))
    kept = {row.model: row.seen_at for row in connection.execute(columns)}
    for model, known in told.items():
        values = {name: getattr(known, name) for name in KnownLimits.__dataclass_fields__}
        if model not in kept:
            connection.execute(insert(ReportedLimitsRow).values(model=model, **values))
        elif known.seen_at > kept[model]:
            connection.execute(update(ReportedLimitsRow).where(ReportedLimitsRow.model == model).values(values))


def known_limits(connection: Connection, models: Iterable[str] | None = None) -> dict[str, KnownLimits]:
    """What is known of these models, or of all."""
    rows = select(ReportedLimitsRow.__table__).where(ReportedLimitsRow.seen_at > time.time() - _KEPT_S)
    if models is not None:
        rows = rows.where(ReportedLimitsRow.model.in_(list(models)))
    return {row.pop("model"): KnownLimits(**row) for row in map(dict, connection.execute(rows).mappings())}


def rest_of_month(connection: Connection, model: str) -> KnownLimits | None:
    """What was told last of a model, if that was in this month of UTC and with the tokens that are left of it."""
    statement = select(ReportedLimitsRow.__table__).where(ReportedLimitsRow.model == model)
    row = connection.execute(statement).mappings().first()
    if row is None or row["tokens_left_of_month"] is None:
        return None
    seen, now = datetime.fromtimestamp(row["seen_at"], UTC), datetime.now(UTC)
    if (seen.year, seen.month) != (now.year, now.month):
        return None
    return KnownLimits(**{name: row[name] for name in KnownLimits.__dataclass_fields__})


def forget_month(connection: Connection, model: str) -> None:
    """What was told so far of the month no longer counts: a person says that the limit was raised."""
    of_model = ReportedLimitsRow.model == model
    connection.execute(update(ReportedLimitsRow).where(of_model).values(tokens_left_of_month=None))
