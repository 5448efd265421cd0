"""Limits that are set for a model bind it by whichever of its names it is asked: `mistral-small-latest` and the dated
name that this means share one limit."""

from __future__ import annotations

import asyncio
import threading
import time

from sqlalchemy.engine import Engine

from labelmill.core.database import reading
from labelmill.core.remote_models import names_of, read_list
from labelmill_worker.mistral.ratelimit.limiter import FleetLimiter

_READ_EVERY_S = 60.0  #: Names move to other models, and the list of a new database is empty at first.


class ModelNames:
    """Has the limiter know the names of the models that are asked. Any thread may tell."""

    def __init__(self, engine: Engine, limiter: FleetLimiter) -> None:
        self._engine, self._limiter = engine, limiter
        self._lock = threading.Lock()
        self._due_at: dict[str, float] = {}  # model, when its names are read again, by the monotonic clock

    def tell(self, model: str, loop: asyncio.AbstractEventLoop) -> None:
        """Before requests to a model are sent on the loop. Raises DatabaseUnavailable."""
        with self._lock:
            if time.monotonic() < self._due_at.get(model, 0.0):
                return
            with reading(self._engine) as connection:
                names = names_of(model, read_list(connection))
            loop.call_soon_threadsafe(self._limiter.also_called, model, names)
            self._due_at[model] = time.monotonic() + _READ_EVERY_S
