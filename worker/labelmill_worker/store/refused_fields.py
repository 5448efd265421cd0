"""Optional fields of requests that a model's server refused, for all workers."""

from __future__ import annotations

import math
import time

from sqlalchemy import select, update
from sqlalchemy.engine import Connection, Engine

from labelmill.core.database import reading, writing
from labelmill.core.database.tables import ModelRow
from labelmill_worker.store.inner_models import is_of_refused_fields, refused_fields_model

_KEPT_S = 30 * 24 * 3600  #: Then the fields are sent again: a server learns new ones.


class StoredRefusedFields:
    """A `RefusalStore` in SQL: the recipe of an inner model."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self, model: str) -> frozenset[str]:
        """See `RefusalStore`. Raises DatabaseUnavailable."""
        with reading(self._engine) as connection:
            return _fields(connection, model)

    def add(self, model: str, fields: frozenset[str]) -> None:
        """See `RefusalStore`. Raises DatabaseUnavailable."""
        with writing(self._engine) as connection:
            known = _fields(connection, model)
            if fields <= known:
                return
            number = refused_fields_model(connection, model)
            recipe = {"refused": sorted(fields | known), "until": time.time() + _KEPT_S}
            connection.execute(update(ModelRow).where(ModelRow.no == number).values(recipe=recipe))


def _fields(connection: Connection, model: str) -> frozenset[str]:
    recipe = connection.scalar(select(ModelRow.recipe).where(*is_of_refused_fields(model))) or {}
    is_old = recipe.get("until", math.inf) < time.time()
    return frozenset(() if is_old else recipe.get("refused", ()))
