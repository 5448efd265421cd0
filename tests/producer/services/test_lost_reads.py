"""Waiting outlives an outage of the database, for a quarter of an hour."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import insert, update

from labelmill.client import Client
from labelmill.contracts.errors import DatabaseUnavailable, NotFound
from labelmill.core.database import connect, writing
from labelmill.core.database.tables import BatchRow, ModelRow
from labelmill.core.settings import load_settings
from labelmill.services.jobs import documents as documents_module
from labelmill.services.jobs import listing as listing_module
from labelmill.services.jobs.lost_reads import LostReads
from labelmill.services.results import reading as reading_module

JOB = "batch_00000000000000000000aaaa"
NOBODY_REDIS = "redis://127.0.0.1:1/0"
GONE = DatabaseUnavailable("the database cannot be used: connection refused")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def reader(clock: Clock, said: list[str]) -> LostReads:
    return LostReads(JOB, said.append, clock=clock, sleep=clock.sleep)


def failing(until: float, clock: Clock) -> Callable[[], str]:
    def look() -> str:
        if clock.now < until:
            raise GONE
        return "found"

    return look


def test_a_read_is_tried_again_until_the_database_is_back_and_each_outage_is_told_once() -> None:
    clock, said = Clock(), list[str]()
    lost = reader(clock, said)
    assert lost.read(failing(800, clock)) == "found"
    assert 800 <= clock.now < 810
    assert len(said) == 2
    assert "connection refused; trying again for 15 minutes" in said[0]
    assert said[1] == "the database answers again"
    # every outage has its own quarter of an hour
    assert lost.read(failing(clock.now + 800, clock)) == "found"
    assert len(said) == 4


def test_after_a_quarter_of_an_hour_the_way_back_to_the_job_is_named() -> None:
    clock, said = Clock(), list[str]()
    with pytest.raises(DatabaseUnavailable, match=f"labelmill watch {JOB}") as given_up:
        reader(clock, said).read(failing(1e9, clock))
    assert 900 <= clock.now < 910
    assert given_up.value.exit_code == 7


def test_other_errors_and_a_deadline_end_the_wait_at_once() -> None:
    clock, said = Clock(), list[str]()

    def unknown() -> None:
        raise NotFound("no such job")

    with pytest.raises(NotFound):
        reader(clock, said).read(unknown)
    with pytest.raises(DatabaseUnavailable):
        reader(clock, said).read(failing(1e9, clock), until=60.0)
    assert 60 <= clock.now < 70


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set while the database answers no read of a producer."""
    away = threading.Event()
    real = documents_module.reading

    @contextlib.contextmanager
    def read(engine: Any) -> Iterator[Any]:
        if away.is_set():
            raise GONE
        with real(engine) as connection:
            yield connection

    monkeypatch.setattr(documents_module, "reading", read)
    monkeypatch.setattr(listing_module, "reading", read)
    monkeypatch.setattr(reading_module, "reading", read)
    return away


def open_batch(url: str) -> None:
    engine = connect(url)
    with writing(engine) as connection:
        connection.execute(insert(ModelRow).values(no=1, name="m", version=1, method="embedding", label_schema=[]))
        connection.execute(
            insert(BatchRow).values(no=1, id=JOB, state="running", model_no=1, model_ref="m", options={})
        )
    engine.dispose()


def end_batch(url: str) -> None:
    engine = connect(url)
    with writing(engine) as connection:
        connection.execute(update(BatchRow).values(state="completed"))
    engine.dispose()


def test_a_client_waits_through_an_outage(database_url: str, quick: threading.Event) -> None:
    open_batch(database_url)
    with Client(load_settings(database_url=database_url, broker_url=NOBODY_REDIS)) as client:
        quick.set()
        threading.Timer(1.0, lambda: (end_batch(database_url), quick.clear())).start()
        job = client.job(JOB)
        assert job.wait(timeout_s=60)["state"] == "completed"
        assert [warning for warning in job.warnings if "trying again" in warning]


def test_followed_results_go_on_through_an_outage(database_url: str, quick: threading.Event) -> None:
    open_batch(database_url)
    with Client(load_settings(database_url=database_url, broker_url=NOBODY_REDIS)) as client:
        quick.set()
        with pytest.raises(DatabaseUnavailable):
            list(client.results(JOB))
        threading.Timer(1.0, lambda: (end_batch(database_url), quick.clear())).start()
        assert list(client.results(JOB, follow=True)) == []
