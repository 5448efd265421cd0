"""What Mistral lists of its own models: which model a name means now, and which ones it will retire.

Workers read the list and keep it in SQL; the producer, which never calls Mistral, warns by it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from labelmill.contracts.ids import model_work_id
from labelmill.core.database.tables import ModelRow, RemoteModelRow, utc_now
from labelmill.core.jobs import events
from labelmill.core.money.prices import listed_names

ASKED_AS = "asked_as"  #: Of a version's recipe: the name that a person gave, where it was pinned to another.
_DATED = re.compile(r"-\d{4}$")
MOVES = "-latest"  #: The end of names that mean a newer model some day.


@dataclass(frozen=True, slots=True)
class Listed:
    """One name in Mistral's list."""

    id: str
    aliases: tuple[str, ...] = ()
    deprecated_at: str | None = None
    replacement: str | None = None


def keep_list(connection: Connection, models: Iterable[Listed]) -> None:
    """Replace what is known of Mistral's models."""
    rows = {
        model.id: {
            "id": model.id,
            "aliases": list(model.aliases),
            "deprecated_at": model.deprecated_at,
            "replacement": model.replacement,
            "seen_at": utc_now(),
        }
        for model in models
    }
    connection.execute(delete(RemoteModelRow))
    if rows:
        connection.execute(insert(RemoteModelRow), list(rows.values()))


def read_list(connection: Connection) -> list[Listed]:
    """What workers saw last; nothing where no worker has looked yet."""
    columns = (RemoteModelRow.id, RemoteModelRow.aliases, RemoteModelRow.deprecated_at, RemoteModelRow.replacement)
    return [
        Listed(row.id, tuple(row.aliases), row.deprecated_at, row.replacement)
        for row in connection.execute(select(*columns))
    ]


def meaning_of(name: str, models: Sequence[Listed]) -> str:
    """The dated name, or else the fixed one, of the model that `name` means; `name` itself where the list tells none.

    Mistral lists a model under each of its names, and each names the others as aliases.
    """
    if _DATED.search(name):
        return name
    same = [model for model in models if name == model.id or name in model.aliases]
    names = {other for model in same for other in (model.id, *model.aliases)}
    if dated := [other for other in names if _DATED.search(other)]:
        return max(dated)
    fixed = {model.id for model in same if not model.id.endswith(MOVES)}
    return fixed.pop() if len(fixed) == 1 else name


def names_of(name: str, models: Sequence[Listed]) -> set[str]:
    """All names by which the model may be asked that `name` means, `name` among them: by the list, or where it does not
    have the name, by that of the prices."""
    same = [model for model in models if name == model.id or name in model.aliases]
    if not same:
        return listed_names(name)
    return {name, *(other for model in same for other in (model.id, *model.aliases))}


def pin(connection: Connection, row: ModelRow, meant: str) -> None:
    """Have a version, which asks its model by a name that may move, ask the model that the name means.

    A model that is used by its id alone becomes the one of the other id, with its labels and thresholds, unless that
    one is in use already; then its open batches are pinned, and later ones belong to the other. Nothing happens where
    that one comes into use at the same moment.
    """
    asked_as = row.remote_model or ""
    values = {"remote_model": meant, "recipe": {**(row.recipe or {}), ASKED_AS: asked_as}}
    if not row.version:
        other = select(ModelRow.no).where(ModelRow.name == meant, ModelRow.version == 0)
        values["name"] = meant if connection.scalar(other) is None else row.name
    unchanged = (ModelRow.no == row.no, ModelRow.remote_model == asked_as)
    with contextlib.suppress(IntegrityError), connection.begin_nested():
        if connection.execute(update(ModelRow).where(*unchanged).values(values)).rowcount:
            said = f"asks {meant} from now on, which {asked_as} means at Mistral"
            events.note(connection, model_work_id(row.no), said)


def warnings_of(row: ModelRow, models: Sequence[Listed]) -> list[str]:
    """What a user of a version should know of its model at Mistral."""
    moved = moved_name_of(row, models)
    return [*([moved] if moved is not None else []), *retirements_of(row, models)]


def moved_name_of(row: ModelRow, models: Sequence[Listed]) -> str | None:
    """That the name by which a person asked for the model means another one by now; None: it does not."""
    asked_as, remote = (row.recipe or {}).get(ASKED_AS), row.remote_model or ""
    if not asked_as or (now := meaning_of(asked_as, models)) in (remote, asked_as):
        return None
    if not row.version:
        return f"{asked_as} means {now} at Mistral by now, and jobs under this name asked {remote} so far"
    return f"{asked_as} means {now} at Mistral by now; {_ref(row)} goes on asking {remote}: train it again to move"


def retirements_of(row: ModelRow, models: Sequence[Listed]) -> list[str]:
    """That Mistral will retire what a version asks."""
    remote = row.remote_model or ""
    names = dict.fromkeys((remote, (row.recipe or {}).get("embedding_model") or remote))
    retired = (deprecation_of(name, models) for name in names)
    return [f"{_ref(row)} asks {said}" for said in retired if said is not None]


def _ref(row: ModelRow) -> str:
    return f"{row.name}@{row.version}" if row.version else row.name


def deprecation_of(name: str, models: Sequence[Listed]) -> str | None:
    """That Mistral will retire a model, in words that begin with its name; None: it does not say so."""
    for model in models:
        if name == model.id and (model.deprecated_at or model.replacement):
            when = f" on {model.deprecated_at[:10]}" if model.deprecated_at else ""
            instead = f"; Mistral names {model.replacement} as its replacement" if model.replacement else ""
            return f"{name}, which Mistral retires{when}{instead}"
    return None
