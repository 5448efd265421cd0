"""What is done to each new connection of an engine before anybody uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine


def prepare_connections(engine: Engine, prepare: Callable[[Any, Any], None]) -> None:
    """Call `prepare(connection, record)` with each new connection of the driver's. One that it raises for is closed:
    SQLAlchemy forgets it, and leaves it open."""

    def prepare_or_close(connection: Any, record: Any) -> None:
        try:
            prepare(connection, record)
        except BaseException:
            connection.close()
            raise

    event.listen(engine, "connect", prepare_or_close)
