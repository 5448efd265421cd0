"""A database that commits and does not answer: its connection is cut before the client hears of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError


class LostCommit:
    """Loses the answer of the commit after a statement that matches `of`, once.

    `takes_effect`: it is committed nevertheless. `stays_away`: no connection is possible from then on.
    """

    def __init__(
        self,
        engine: Engine,
        monkeypatch: pytest.MonkeyPatch,
        of: str,
        *,
        takes_effect: bool = True,
        stays_away: bool = False,
    ) -> None:
        self._engine, self._monkeypatch, self._of = engine, monkeypatch, re.compile(of)
        self._takes_effect, self._stays_away = takes_effect, stays_away
        self._commit = engine.dialect.do_commit
        self._is_next, self.was_lost = False, False
        event.listen(engine, "before_cursor_execute", self._see)
        monkeypatch.setattr(engine.dialect, "do_commit", self._lose)

    def _see(self, _: Any, __: Any, statement: str, *___: Any) -> None:
        self._is_next |= not self.was_lost and self._of.match(statement) is not None

    def _lose(self, connection: Any) -> None:
        if not self._is_next:
            self._commit(connection)
            return
        self._is_next, self.was_lost = False, True
        if self._takes_effect:
            self._commit(connection)
        if self._stays_away:
            self._monkeypatch.setattr(self._engine, "raw_connection", self._refuse)
            self._monkeypatch.setattr(self._engine, "connect", self._refuse)
        raise self._fault()

    def _refuse(self, *_: Any, **__: Any) -> None:
        raise OperationalError("connect", None, self._fault())

    def _fault(self) -> Exception:
        module: Any = self._engine.dialect.loaded_dbapi
        fault: Exception = module.OperationalError("server closed the connection unexpectedly")
        return fault
