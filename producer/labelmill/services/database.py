"""Upgrading the database's tables. It takes no context, because a context refuses older tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labelmill.core.database import connect, current_revision, upgrade


@dataclass(frozen=True)
class UpgradedTables:
    """The revisions of the tables; `before` is None where there were none."""

    before: str | None
    after: str | None


def upgrade_tables(database_url: str, report: Callable[[str], None] = lambda _: None) -> UpgradedTables:
    """Does nothing when they are at this version; safe to run twice at once. `report` is told of each step as it
    begins, for some take minutes. Raises DatabaseUnavailable, DatabaseNewer, DatabaseUnsuitable."""
    engine = connect(database_url)
    try:
        before = current_revision(engine)
        upgrade(engine, report=report)
        return UpgradedTables(before, current_revision(engine))
    finally:
        engine.dispose()
