"""The version of the database's tables, and the version that this code needs."""

from __future__ import annotations

import re
from importlib.resources import files

from sqlalchemy import inspect, text
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import DatabaseNewer, DatabaseOutdated
from labelmill.core.database.connecting import reading
from labelmill.core.database.faults import outdated

MIGRATIONS = files("labelmill.core.database") / "migrations"


_LINK = re.compile(r'^down_revision\b.*= (?:None|"(\w+)")$', re.MULTILINE)


def revisions() -> list[str]:
    """The versions of the tables that this code knows, oldest first. Each file's name begins with its version and names
    the one before; files are read as text, for Alembic is slow to import and every command asks."""
    files_ = [file for file in (MIGRATIONS / "versions").iterdir() if file.name.endswith(".py")]
    links = {file.name.partition("_")[0]: _LINK.search(file.read_text()) for file in files_}
    after = {link[1] if link else None: version for version, link in links.items()}
    ordered: list[str] = []
    while (version := after.get(ordered[-1] if ordered else None)) is not None:
        ordered.append(version)
    return ordered


def head_revision() -> str:
    """The version of the tables that this code needs."""
    return revisions()[-1]


def current_revision(engine: Engine) -> str | None:
    """The version of the tables in the database; None when it has none."""
    with reading(engine) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return revision


def check_tables(engine: Engine) -> None:
    """Raise DatabaseOutdated unless the tables are the ones this code needs."""
    current, needed = current_revision(engine), head_revision()
    if current == needed:
        return
    if current is None:
        raise outdated(engine)  # usually the command runs in another folder than the data
    refuse_newer(current)
    raise DatabaseOutdated(
        f"the database's tables are of version {current}, older than {needed}: run `labelmill db upgrade`"
    )


def refuse_newer(current: str | None) -> None:
    """Raise DatabaseOutdated for tables of a version that this code does not know."""
    if current is not None and current not in revisions():
        raise DatabaseNewer(
            f"the database's tables are of version {current}, which a newer Labelmill made: upgrade this one"
        )
