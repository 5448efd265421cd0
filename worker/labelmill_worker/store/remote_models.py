"""Mistral's list of models, kept for the producer to warn by, and what a new list changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import structlog
from sqlalchemy import select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.ids import model_work_id
from labelmill.contracts.moderation import MODERATION
from labelmill.core.database import lock_name, writing
from labelmill.core.database.tables import ModelRow
from labelmill.core.jobs import events
from labelmill.core.remote_models import ASKED_AS, Listed, keep_list, meaning_of, moved_name_of, pin, read_list
from labelmill_worker.ports.control_plane import RemoteModel

log = structlog.get_logger()

_PINNED = (
    MODERATION,
    "prompt",
)  #: Methods whose versions are pinned late, where no list was known when they were made.


def keep_models(engine: Engine, models: Iterable[RemoteModel]) -> list[Listed]:
    """Replace the list by one that was just read. Where a name in use means another model than before, that is noted in
    the events of the versions that were made by it."""
    listed = [Listed(model.id, model.aliases, model.deprecated_at, model.replacement) for model in models]
    with writing(engine) as connection:
        lock_name(connection, "list", "models")  # several workers may have read it, at the request of `doctor`
        before = read_list(connection)
        keep_list(connection, listed)
        moved = _note_changes(connection, before, listed)
    for said in moved:
        log.warning("a name means another model", reason=said)
    return listed


def _note_changes(connection: Connection, before: Sequence[Listed], now: Sequence[Listed]) -> list[str]:
    moved = []
    rows = connection.execute(select(ModelRow.__table__).where(ModelRow.state == "ready").order_by(ModelRow.no))
    for row in [ModelRow(**values) for values in rows.mappings()]:
        asked_as, remote = (row.recipe or {}).get(ASKED_AS), row.remote_model or ""
        if asked_as is None:
            if row.method in _PINNED and (meant := meaning_of(remote, now)) != remote:
                pin(connection, row, meant)
            continue
        said, known = moved_name_of(row, now), meaning_of(asked_as, before)
        # where the list before did not have the name, the version's own model is what it meant last
        if said is not None and meaning_of(asked_as, now) != (remote if known == asked_as else known):
            events.note(connection, model_work_id(row.no), said)
            moved.append(said)
    return moved
