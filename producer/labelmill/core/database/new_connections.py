"""Setting up each new connection of an engine before it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine


def prepare_connections(engine: Engine, prepare: Callable[[Any, Any], None]) -> None:
    """Call `prepare(connection, record)` with each new connection of the driver. If that raises, the connection is
    closed: SQLAlchemy would drop it without closing it."""

    def prepare_or_close(connection: Any, record: Any) -> None:
        try:
            prepare(connection, record)
        except BaseException:
            connection.close()
            raise

    event.listen(engine, "connect", prepare_or_close)
