"""When a child of `labelmill up` counts as ready."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis
from kombu.exceptions import OperationalError

from labelmill_ops.stack.local import _answers_celery_ping


@pytest.mark.parametrize(
    "error", [redis.DataError("no input"), redis.ConnectionError("gone"), OperationalError("gone"), TimeoutError()]
)
def test_a_worker_that_could_not_be_asked_is_asked_again(error: Exception) -> None:
    outcomes: list[Any] = [error, [], [{"worker1@here": {"ok": "pong"}}]]

    def ping(**_: Any) -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    app = SimpleNamespace(control=SimpleNamespace(ping=ping))
    is_ready = _answers_celery_ping(cast("Any", app), "worker1@here")
    assert [is_ready() for _ in range(3)] == [False, False, True]
