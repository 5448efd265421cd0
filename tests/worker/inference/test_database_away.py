"""The database goes away for a while in the middle of a batch, and the workers live: no answer is paid for twice."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from mill import DEADLINE_S, Mill, assert_all_labelled, assert_billed_once, open_mill, some_texts, until
from sqlalchemy import select, update
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.core.database import connect, db_now, reading, writing
from labelmill.core.database.tables import ChunkRow, LockRow
from labelmill_worker.inference.chunk_record import ChunkRecord
from labelmill_worker.inference.outcomes import Delivery
from labelmill_worker.inference.sending_window import SendingWindow
from labelmill_worker.runtime.bootstrap import ProcessResources
from labelmill_worker.runtime.recovery.sweep import sweep_if_due
from labelmill_worker.store.chunks import claim_chunk

MOMENT_S = 1.0  #: A lease that runs out within a test.


class Outage:
    """Commits fail, and their connections end, in the threads that `meets` says."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self._commit = engine.dialect.do_commit
        self._error = sqlite3.OperationalError if engine.dialect.name == "sqlite" else psycopg.OperationalError
        self.meets: Callable[[str], bool] = lambda _: False
        self.met = 0
        monkeypatch.setattr(engine.dialect, "do_commit", self._commit_or_fail)

    def _commit_or_fail(self, connection: Any) -> None:
        if not self.meets(threading.current_thread().name):
            self._commit(connection)
            return
        self.met += 1
        connection.dbapi_connection.close()
        raise self._error("the database is away")


@pytest.fixture
def outage(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Outage:
    return Outage(engine, monkeypatch)


@pytest.fixture
def hasty(engine: Engine, mistral: StrictMistral, redis_url: str) -> Iterator[Mill]:
    """A worker whose leases run out within a moment."""
    made, runtime = open_mill(engine, mistral, redis_url, lease_s=MOMENT_S)
    yield made
    runtime.close()


def lease_has_run_out(engine: Engine) -> bool:
    with reading(engine) as connection:
        return bool(connection.scalar(select(ChunkRow.lease_until < db_now()).where(ChunkRow.state == "claimed")))


def test_the_answer_that_a_models_labels_are_learnt_from_is_paid_for_once(mill: Mill, outage: Outage) -> None:
    outage.meets = lambda thread: thread.startswith("uvloop") and outage.met < 2  # who keeps what was learnt
    texts = some_texts(60)
    batch = mill.submit(texts)
    assert mill.run(batch)["state"] == "completed"
    assert outage.met == 2
    assert_all_labelled(mill, batch, texts)
    assert_billed_once(mill, texts)


def test_a_lease_that_ran_out_while_the_database_was_away_is_left_to_its_owner(
    hasty: Mill, outage: Outage, tmp_path: Path, redis_url: str
) -> None:
    settings = hasty.settings.model_copy(update={"sweep_s": 0.01, "data_dir": str(tmp_path)})
    resources = ProcessResources(settings, hasty.engine, hasty.sender)
    texts = some_texts(60)
    batch = hasty.submit(texts)
    hasty.fake.waiting.clear()
    sweep_if_due(resources.engine, resources.sender, resources.settings)
    hasty.mistral.latency_s = 0.2
    outage.meets = lambda thread: thread == "recorder"
    worker = threading.Thread(target=hasty.work, args=(batch,))
    worker.start()
    until(lambda: lease_has_run_out(hasty.engine))
    assert sum(hasty.mistral.billed.values()) > 0
    sweep_if_due(
        resources.engine, resources.sender, resources.settings
    )  # the database is back, and the sweep comes first
    outage.meets = lambda _: False
    worker.join(DEADLINE_S)
    assert hasty.run(batch)["state"] == "completed"
    assert_all_labelled(hasty, batch, texts)
    assert_billed_once(hasty, texts)


def test_who_has_not_come_back_by_the_next_sweep_loses_its_chunk(mill: Mill, tmp_path: Path) -> None:
    settings = mill.settings.model_copy(update={"sweep_s": 0.01, "data_dir": str(tmp_path)})
    resources = ProcessResources(settings, mill.engine, mill.sender)
    batch = mill.submit(some_texts(20))
    sweep_if_due(resources.engine, resources.sender, resources.settings)
    assert claim_chunk(mill.engine, batch, 0, MOMENT_S) is not None
    with writing(mill.engine) as connection:  # nobody swept for half a minute; ten seconds ago the lease ran out
        connection.execute(update(LockRow).values(lease_until=db_now() - 30))
        connection.execute(update(ChunkRow).values(lease_until=db_now() - 10))
    sweep_if_due(resources.engine, resources.sender, resources.settings)
    assert states(mill.engine) == ["claimed"]
    until(lambda: is_free(mill.engine))
    sweep_if_due(resources.engine, resources.sender, resources.settings)
    assert states(mill.engine) == ["pending"]


def test_after_a_night_without_sweeps_nobody_is_waited_for(mill: Mill, tmp_path: Path) -> None:
    settings = mill.settings.model_copy(update={"data_dir": str(tmp_path)})
    resources = ProcessResources(settings, mill.engine, mill.sender)
    batch = mill.submit(some_texts(20))
    sweep_if_due(resources.engine, resources.sender, resources.settings)
    assert claim_chunk(mill.engine, batch, 0, MOMENT_S) is not None
    with writing(mill.engine) as connection:
        connection.execute(update(LockRow).values(lease_until=db_now() - 8 * 3600))
        connection.execute(update(ChunkRow).values(lease_until=db_now() - 7 * 3600))
    sweep_if_due(resources.engine, resources.sender, resources.settings)
    assert states(mill.engine) == ["pending"]


def states(engine: Engine) -> list[str]:
    with reading(engine) as connection:
        return list(connection.scalars(select(ChunkRow.state)))


def is_free(engine: Engine) -> bool:
    with reading(engine) as connection:
        return bool(connection.scalar(select(LockRow.lease_until < db_now())))


def test_a_chunk_that_could_not_be_begun_keeps_no_lease(
    hasty: Mill, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty.run(hasty.submit(some_texts(20)))
    batch = hasty.submit(some_texts(30), cache=True)
    keep_lease, has_lease = hasty.runtime.recorder.open, threading.Event()

    def keep(*arguments: Any) -> ChunkRecord:
        record = keep_lease(*arguments)
        has_lease.set()
        return record

    monkeypatch.setattr(hasty.runtime.recorder, "open", keep)
    outage.meets = lambda thread: thread == "MainThread" and not outage.met and has_lease.is_set()
    with pytest.raises(DatabaseUnavailable):
        hasty.work(batch)
    assert outage.met == 1
    until(lambda: lease_has_run_out(hasty.engine))


@pytest.mark.postgres
def test_a_lease_counts_from_the_commit_that_went_through_though_its_answer_was_lost(
    postgres_url: str, mistral: StrictMistral, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = connect(postgres_url)
    made, runtime = open_mill(engine, mistral, redis_url)
    batch = made.submit(some_texts(20))
    claim = claim_chunk(engine, batch, 0, 15)
    assert claim is not None
    commit, lost_at = engine.dialect.do_commit, 0.0

    def carry_out_without_an_answer(connection: Any) -> None:
        nonlocal lost_at
        commit(connection)
        if threading.current_thread().name == "recorder" and not lost_at:
            lost_at = time.monotonic()
            connection.dbapi_connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(engine.dialect, "do_commit", carry_out_without_an_answer)
    window = SendingWindow(0.0, 0.0)
    record = runtime.recorder.open(claim, {0}, window)
    until(lambda: window.lease_until)
    assert window.lease_until <= lost_at + 15
    runtime.recorder.put(record, Delivery((), is_last=True))
    with suppress(Exception):
        record.result()
    runtime.close()
    engine.dispose()
