"""Statements that SQLAlchemy has compiled, for all engines of a test process.

Each engine keeps its own, and each test has a new engine: compiling the same statements for every test took a sixth of
all its CPU time.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

_MAX = 5_000


class _OfAllEngines(dict[Any, Any]):
    """A dictionary for SQLAlchemy's option `compiled_cache`. Its keys begin with the dialect of one engine: here the
    dialect's name and the server's version stand for it."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_of_any_engine(key), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        if len(self) >= _MAX:
            self.clear()
        super().__setitem__(_of_any_engine(key), compiled)


def _of_any_engine(key: tuple[Any, ...]) -> tuple[Any, ...]:
    dialect, *statement = key
    return (dialect.name, dialect.server_version_info, *statement)


def share_compiled_statements() -> None:
    """Let all engines that this process makes from now on use each other's compiled statements."""
    compiled = _OfAllEngines()

    @event.listens_for(Engine, "engine_connect")
    def use_them(connection: Connection) -> None:
        connection.execution_options(compiled_cache=compiled)
