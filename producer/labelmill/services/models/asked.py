"""The model of a submission, and what its user should know of it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from labelmill.contracts.field_names import Notice
from labelmill.contracts.ids import model_work_id
from labelmill.contracts.moderation import MODERATION
from labelmill.core.database.tables import ModelRow
from labelmill.core.jobs import events
from labelmill.core.remote_models import ASKED_AS, read_list, retirements_of, warnings_of
from labelmill.services.models.resolving import is_raw, resolve_model


@dataclass(frozen=True)
class AskedModel:
    """`pinned`: what the events of the job should say of its model; None: it was named as it is asked."""

    row: ModelRow
    warnings: tuple[Notice, ...]
    pinned: str | None


def asked_model(connection: Connection, ref: str) -> AskedModel:
    """The model that `ref` names, for a job that asks it. Raises NotFound, InvalidInput."""
    row, listed = resolve_model(connection, ref), read_list(connection)
    if not is_raw(ref):
        return AskedModel(row, tuple(map(Notice, warnings_of(row, listed))), None)
    warnings, pinned = retirements_of(row, listed), None
    if row.remote_model != ref:
        pinned = f"asks {row.remote_model}, which {ref} means at Mistral now"
        if (moved := _note_name(connection, row, ref)) is not None:
            warnings.insert(0, moved)
    return AskedModel(row, tuple(map(Notice, warnings)), pinned)


def _note_name(connection: Connection, row: ModelRow, asked_as: str) -> str | None:
    """Keep with the model that it was asked for by this name. Returns that the name meant another one before, if so."""
    if (row.recipe or {}).get(ASKED_AS) == asked_as:
        return None
    said = None
    raw = select(ModelRow.__table__).where(ModelRow.version == 0, ModelRow.method == MODERATION, ModelRow.no != row.no)
    for other in [ModelRow(**values) for values in connection.execute(raw).mappings()]:
        recipe = dict(other.recipe or {})
        if recipe.get(ASKED_AS) != asked_as:
            continue
        recipe.pop(ASKED_AS)
        connection.execute(update(ModelRow).where(ModelRow.no == other.no).values(recipe=recipe or None))
        if other.remote_model != row.remote_model:
            said = f"{asked_as} means {row.remote_model} at Mistral by now; earlier jobs asked {other.remote_model}"
            events.note(connection, model_work_id(row.no), said)
    recipe = {**(row.recipe or {}), ASKED_AS: asked_as}
    connection.execute(update(ModelRow).where(ModelRow.no == row.no).values(recipe=recipe))
    return said
