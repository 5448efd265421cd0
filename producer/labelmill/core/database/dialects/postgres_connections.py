"""Connections to PostgreSQL that behave the same whatever the environment, the role or a pooler configures."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, create_engine
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import DatabaseUnsuitable
from labelmill.core.database.new_connections import prepare_connections

#: A network that drops packets is noticed within 30 s, during a statement and between two.
_CONNECTION = {
    "connect_timeout": 5,
    "tcp_user_timeout": 30_000,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
}
_SESSION = {
    # on the server too: the locks of a client that vanished would be held for two hours, Linux' default
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "4",
    "tcp_user_timeout": "30000",
    # dates are parsed only in this form
    "DateStyle": "ISO",
    "TimeZone": "UTC",
}
_SPELLINGS = {"DateStyle": ("ISO",), "TimeZone": ("UTC", "Etc/UTC", "GMT", "Etc/GMT")}
_POOLED = "labelmill_pooled"

CREATE_IN_UTF8 = "CREATE DATABASE labelmill ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"


def open_postgres(url: URL, max_connections: int) -> Engine:
    """An engine of at most `max_connections` connections, half of which are kept. Opens none yet."""
    pool_size = (max_connections + 1) // 2
    arguments = {name: value for name, value in _CONNECTION.items() if name not in url.query}
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=max_connections - pool_size,
        pool_pre_ping=True,
        # beats PGCLIENTENCODING
        connect_args=arguments | {"client_encoding": "utf8"},
    )
    prepare_connections(engine, _prepare)
    return engine


def is_pooled(connection: Connection) -> bool:
    """Whether a pooler stands between this connection and PostgreSQL."""
    return bool(connection.info.get(_POOLED))


def _prepare(connection: Any, record: Any) -> None:
    from psycopg import IsolationLevel  # noqa: PLC0415 - only where PostgreSQL is used

    _require_utf8(connection)
    # sent with each BEGIN, so that the default of a role or database does not apply
    connection.isolation_level = IsolationLevel.READ_COMMITTED
    previous_autocommit, connection.autocommit = connection.autocommit, True
    if not _set_up_session(connection):
        record.info[_POOLED] = True
        # the next transaction may run in another session, which does not know statements prepared here
        connection.prepare_threshold = None
        _set_what_poolers_follow(connection)
    connection.autocommit = previous_autocommit


def _set_up_session(connection: Any) -> bool:
    """Set the session's parameters, if the session is not shared; returns whether that is so.

    A pooler shares its sessions among clients, and tells them a process number of its own making.
    """
    settings = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _SESSION.items())
    has_own_session = f"pg_backend_pid() = {connection.info.backend_pid}"
    (done,) = connection.execute(
        f"SELECT CASE WHEN {has_own_session} THEN array_length(ARRAY[{settings}], 1) END"
    ).fetchone()
    return done is not None


def _set_what_poolers_follow(connection: Any) -> None:
    # the server reports these to clients, so poolers know each client's values and set them
    for name, spellings in _SPELLINGS.items():
        reported = connection.info.parameter_status(name)
        if reported is not None and reported.partition(",")[0] not in spellings:
            connection.execute(f"SET {name} = '{_SESSION[name]}'")


def _require_utf8(connection: Any) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in (None, "UTF8"):
        refusal = DatabaseUnsuitable(
            f"the database {connection.info.dbname} keeps text in {encoding}, which cannot hold every text: "
            f"make one in UTF-8 and name it in LABELMILL_DATABASE_URL: {CREATE_IN_UTF8}"
        )
        connection.close()
        raise refusal
