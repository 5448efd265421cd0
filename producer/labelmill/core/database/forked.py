"""Engines in forked processes: a child must not use its parent's connections, on which both would read each other's
answers. A program may fork after it made a client, as `gunicorn --preload` and `multiprocessing` do."""

from __future__ import annotations

import os
from weakref import WeakSet

from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

_engines: WeakSet[Engine] = WeakSet()
_of_parents: list[Pool] = []  #: Never closed here: the parent's connections go on.


def has_own_connections_after_fork(engine: Engine) -> Engine:
    """The same engine, which opens connections of its own in each process that is forked from this one."""
    _engines.add(engine)
    return engine


def _leave_connections_to_parent() -> None:
    for engine in list(_engines):
        _of_parents.append(engine.pool)
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_leave_connections_to_parent)
