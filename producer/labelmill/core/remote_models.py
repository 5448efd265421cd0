"""What Mistral lists of its own models: which model a name means now, and which ones it will retire.

Workers read the list and keep it in SQL; the producer, which never calls Mistral, warns by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Connection

from labelmill.core.database.tables import ModelRow, RemoteModelRow, utc_now

ASKED_AS = "asked_as"  #: Of a version's recipe: the name that its training was given, where it was pinned to another.
_DATED = re.compile(r"-\d{4}$")
_LATEST = "-latest"


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
    fixed = {model.id for model in same if not model.id.endswith(_LATEST)}
    return fixed.pop() if len(fixed) == 1 else name


def warnings_of(row: ModelRow, models: Sequence[Listed]) -> list[str]:
    """What a user of a version should know of its model at Mistral."""
    ref = f"{row.name}@{row.version}" if row.version else row.name
    warnings = []
    asked_as, remote = (row.recipe or {}).get(ASKED_AS), row.remote_model or ""
    if asked_as and (now := meaning_of(asked_as, models)) not in (remote, asked_as):
        warnings.append(
            f"{asked_as} means {now} at Mistral by now; {ref} goes on asking {remote}: train it again to move"
        )
    names = dict.fromkeys((remote, (row.recipe or {}).get("embedding_model") or remote))
    retired = (deprecation_of(name, models) for name in names)
    return [*warnings, *(f"{ref} asks {said}" for said in retired if said is not None)]


def deprecation_of(name: str, models: Sequence[Listed]) -> str | None:
    """That Mistral will retire a model, in words that begin with its name; None: it does not say so."""
    for model in models:
        if name == model.id and (model.deprecated_at or model.replacement):
            when = f" on {model.deprecated_at[:10]}" if model.deprecated_at else ""
            instead = f"; Mistral names {model.replacement} as its replacement" if model.replacement else ""
            return f"{name}, which Mistral retires{when}{instead}"
    return None
