"""Connections to SQLite: one machine's processes on one file, in WAL mode."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from functools import partial
from pathlib import Path

from sqlalchemy import URL, create_engine, event
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import DatabaseUnavailable, DatabaseUnsuitable
from labelmill.core.database.file_systems import network_file_system
from labelmill.core.database.new_connections import prepare_connections
from labelmill.core.storage.new_files import make_private_file, make_private_folder

BUSY_TIMEOUT_MS = 30_000


def open_sqlite(url: URL, *, create_folder: bool) -> Engine:
    """An engine on a file; opens no connection yet. Raises DatabaseUnsuitable for a file on another machine."""
    if (url.database or "").startswith("~"):
        url = url.set(database=os.path.expanduser(url.database or ""))  # noqa: PTH111 - it stays as it is without a home
    path = database_file(url)
    if path is not None:
        _require_local(path)
        if create_folder:
            _create_folder(path.parent)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False})
    if path is not None:
        event.listen(engine, "do_connect", partial(_make_file, path))
    prepare_connections(engine, _prepare)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def _create_folder(folder: Path) -> None:
    try:
        make_private_folder(folder)
    except OSError as error:
        raise DatabaseUnavailable(f"the database's folder {folder} cannot be made: {error.strerror}") from error


def database_file(url: URL) -> Path | None:
    """The file of a SQLite URL; None: it is in memory."""
    name = url.database or ""
    if name.startswith("file:"):
        name = name.removeprefix("file:").partition("?")[0]
    return None if name in ("", ":memory:") else Path(name)


def _require_local(path: Path) -> None:
    kind = network_file_system(path)
    if kind:
        raise DatabaseUnsuitable(
            f"SQLite cannot be shared over a network, and {path} lies on a network file system ({kind}): "
            "use PostgreSQL (LABELMILL_DATABASE_URL=postgresql://…), or a file on a local disk of one machine"
        )


def _make_file(path: Path, *_: object) -> None:
    # SQLite itself leaves it to the umask who may read all texts; it gives its log and its index the mode of this file
    with contextlib.suppress(OSError):  # SQLite says what is wrong
        make_private_file(path.resolve())


def _prepare(connection: sqlite3.Connection, record: object) -> None:
    del record
    connection.isolation_level = None  # BEGIN is ours, see _begin_immediate
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: Connection) -> None:
    # A transaction that reads first and writes later cannot wait for the write lock: take it at once. Readers say
    # `execution_options(read_only=True)` and never wait.
    read_only = connection.get_execution_options().get("read_only")
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
