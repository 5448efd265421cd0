"""A creation whose answer is lost may have made a job all the same: one job is kept, any other one is stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from mill import some_texts
from remote_mill import RemoteMill
from sqlalchemy import update

from labelmill.contracts.errors import RateLimited, RemoteUnavailable
from labelmill.core.database import writing
from labelmill.core.database.tables import RemoteBatchRow
from labelmill.services.jobs.actions import cancel
from labelmill.services.jobs.requests import JobRequest
from labelmill_worker.inference.batch_mode import creation, packing


@pytest.fixture
def stopped(mill: RemoteMill, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that Mistral was asked to stop."""
    ids: list[str] = []
    whole = mill.jobs.cancel

    def record(job_id: str) -> object:
        ids.append(job_id)
        return whole(job_id)

    monkeypatch.setattr(mill.jobs, "cancel", record)
    return ids


def _at_first(name: str, act: Callable[[], None]) -> Callable[[str], None]:
    """For `before_call` and `after_call`: act at the first call of that name."""
    ahead = [name]

    def called(method: str) -> None:
        if method in ahead:
            ahead.remove(method)
            act()

    return called


def _lose() -> None:
    raise RemoteUnavailable("the answer was lost")


def _hide_first_job(mill: RemoteMill, monkeypatch: pytest.MonkeyPatch, *, lists: int) -> None:
    """The first so many lists do not have it."""
    whole, left = mill.jobs.find, [lists]

    def find(metadata: dict[str, str], created_after: float) -> object:
        found = whole(metadata, created_after)
        left[0] -= 1
        return [job for job in found if left[0] < 0 or job.id != mill.jobs.created[0].id]

    monkeypatch.setattr(mill.jobs, "find", find)


@pytest.mark.parametrize("inline", [True, False])
def test_a_job_that_is_listed_after_a_second_one_was_made_is_stopped(
    mill: RemoteMill, stopped: list[str], inline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MAX_INLINE_REQUESTS", 1_000 if inline else 0)
    mill.jobs.statuses = ["RUNNING"] * 5 + ["SUCCESS"]
    mill.memory.after_call = _at_first("create", _lose)
    _hide_first_job(mill, monkeypatch, lists=3)
    texts = some_texts(60)
    batch = mill.submit(texts)
    mill.until(lambda: bool(stopped))
    assert [row.step for row in mill.remote()] == ["waiting"]
    assert mill.run(batch)["rows"]["labelled"] == 60
    first, second = mill.jobs.created
    assert [row.remote_id for row in mill.remote()] == [second.id]
    assert stopped == [first.id]
    assert mill.memory.billed == Counter(texts)
    assert not mill.jobs.files
    assert not inline or not mill.jobs.jobs, "texts of a request are left at Mistral"


@pytest.mark.parametrize("inline", [True, False])
def test_a_job_that_was_answered_before_it_is_listed_is_read_and_the_second_one_stopped(
    mill: RemoteMill, stopped: list[str], inline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MAX_INLINE_REQUESTS", 1_000 if inline else 0)
    mill.jobs.statuses = ["RUNNING"] * 3 + ["SUCCESS"]
    mill.memory.after_call = _at_first("create", _lose)
    _hide_first_job(mill, monkeypatch, lists=3)
    texts = some_texts(60)
    batch = mill.submit(texts)
    mill.until(lambda: len(mill.jobs.created) == 2)
    first, second = mill.jobs.created
    mill.jobs.statuses = []
    while not mill.jobs.jobs[first.id].has_ended:
        mill.jobs.get(first.id)
    assert mill.run(batch)["rows"]["labelled"] == 60
    assert stopped == [second.id]
    assert mill.memory.billed == Counter(texts)
    assert not mill.jobs.files
    assert not inline or not mill.jobs.jobs, "texts of a request are left at Mistral"


def test_a_job_that_is_listed_a_little_late_is_taken_over(
    mill: RemoteMill, stopped: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "LISTED_AFTER_S", 30.0)
    mill.memory.after_call = _at_first("create", _lose)
    _hide_first_job(mill, monkeypatch, lists=3)
    texts = some_texts(60)
    assert mill.run(mill.submit(texts))["rows"]["labelled"] == 60
    assert len(mill.jobs.created) == 1
    assert not stopped


def test_a_cancelled_batch_stops_a_job_that_is_listed_a_little_late(
    mill: RemoteMill, stopped: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "LISTED_AFTER_S", 30.0)
    mill.jobs.statuses, mill.jobs.answered_share = ["RUNNING"] * 1_000, 0.5
    mill.memory.after_call = _at_first("create", _lose)
    _hide_first_job(mill, monkeypatch, lists=3)
    batch = mill.submit(some_texts(60))
    mill.until(lambda: bool(mill.jobs.created))
    cancel(mill.context, JobRequest(batch))
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"]) == ("cancelled", 30)
    assert stopped == [mill.jobs.created[0].id]


def test_a_job_that_is_listed_when_a_cancelled_batch_cleans_up_is_stopped(
    mill: RemoteMill, stopped: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mill.jobs.statuses = ["RUNNING"] * 1_000
    mill.memory.after_call = _at_first("create", _lose)
    _hide_first_job(mill, monkeypatch, lists=1)
    batch = mill.submit(some_texts(60))
    mill.until(lambda: bool(mill.jobs.created))
    cancel(mill.context, JobRequest(batch))
    assert mill.run(batch)["state"] == "cancelled"
    assert stopped == [mill.jobs.created[0].id]


def test_a_worker_that_was_frozen_stops_the_job_that_it_makes_too_late(mill: RemoteMill, stopped: list[str]) -> None:
    mill.jobs.statuses = ["RUNNING"] * 1_000
    texts = some_texts(60)
    batch = mill.submit(texts)

    def be_frozen() -> None:
        with writing(mill.engine) as connection:
            connection.execute(update(RemoteBatchRow).values(lease_until=1.0))
        mill.until_step(batch, "waiting")  # another worker goes on with it

    mill.memory.before_call = _at_first("create", be_frozen)
    mill.until(lambda: len(mill.jobs.created) == 2)
    kept, late = mill.jobs.created
    assert [row.remote_id for row in mill.remote()] == [kept.id]
    assert stopped == [late.id]


def test_a_creation_that_was_surely_refused_is_not_suspected(mill: RemoteMill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creation, "LISTED_AFTER_S", 30.0)
    refused = iter([True, True, False])

    def before_call(name: str) -> None:
        if name == "create" and next(refused):
            raise RateLimited("Mistral asks for fewer requests")

    mill.memory.before_call = before_call
    assert mill.run(mill.submit(some_texts(60)))["rows"]["labelled"] == 60
    assert [row.creations for row in mill.remote()] == [1]
