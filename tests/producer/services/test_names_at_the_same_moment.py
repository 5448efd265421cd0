"""Names, versions and aliases that several people make at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.engine import Connection, Engine

from labelmill.core.database import reading, writing
from labelmill.core.database.tables import ModelRow
from labelmill.services import models as registry

_AT_ONCE = 6


def at_the_same_moment(engine: Engine, act: Callable[[Connection, int], Any]) -> list[Any]:
    together = threading.Barrier(_AT_ONCE)

    def one(number: int) -> Any:
        with writing(engine) as connection:
            if engine.dialect.name == "postgresql":  # SQLite lets one of them begin at a time
                together.wait(30)
            return act(connection, number)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(one, range(_AT_ONCE)))


def test_each_registration_at_the_same_moment_gets_a_version_of_its_own(engine: Engine) -> None:
    rows = at_the_same_moment(engine, lambda connection, n: registry.register(connection, "m", f"ft:classifier:{n}"))
    assert sorted(row.version for row in rows) == list(range(1, _AT_ONCE + 1))


def test_the_same_classifier_registered_at_the_same_moment_is_one_version(engine: Engine) -> None:
    rows = at_the_same_moment(engine, lambda connection, _: registry.register(connection, "m", "ft:classifier:one"))
    assert {row.version for row in rows} == {1}


def test_a_model_that_is_named_by_its_id_at_the_same_moment_is_one_row(engine: Engine) -> None:
    rows = at_the_same_moment(engine, lambda connection, _: registry.resolve_model(connection, "ft:classifier:one"))
    assert len({row.no for row in rows}) == 1


def test_aliases_and_promotions_at_the_same_moment_end_with_one_of_each(engine: Engine) -> None:
    with writing(engine) as connection:
        for number in range(_AT_ONCE):
            registry.register(connection, "m", f"ft:classifier:{number}")
    at_the_same_moment(engine, lambda connection, n: registry.set_alias(connection, f"m@{n + 1}", "champion"))
    at_the_same_moment(engine, lambda connection, n: registry.promote(connection, f"m@{n + 1}"))
    with reading(engine) as connection:
        promoted = select(func.count()).select_from(ModelRow).where(ModelRow.promoted.is_(True))
        assert connection.scalar(promoted) == 1
        assert registry.resolve_model(connection, "m@champion").name == "m"
