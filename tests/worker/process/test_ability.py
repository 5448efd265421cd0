"""A worker that cannot do some work leaves it to another one, if there is one; else the job ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from mill import KEY, Mill, assert_all_labelled, assert_billed_once, some_texts
from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral

from labelmill.contracts.errors import CredentialsRefused, WorkerUnable
from labelmill.contracts.specs import TrainSpec
from labelmill.core.database import db_now, reading, writing
from labelmill.core.database.tables import ModelRow, UnableWorkerRow, WorkerRow
from labelmill.core.settings import Settings
from labelmill_worker.inference.inference_runtime import InferenceRuntime
from labelmill_worker.mistral.realtime import RealtimeInference
from labelmill_worker.process import requeue as requeueing
from labelmill_worker.process.ability import MISTRAL, PATIENCE_S, RETRY_S, Ability
from labelmill_worker.store.workers import LIVE_S, RESUME_S, note_alive, note_gone

NO_KEY = CredentialsRefused("no key")
NO_FILE = WorkerUnable("no file")
QUEUE = "classify"


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requeueing, "REQUEUE_PAUSE_S", 0.0)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _ability(engine: Engine, worker: str = "one") -> tuple[Ability, Clock]:
    clock = Clock()
    return Ability(engine, worker, clock=clock), clock


def _pass_time(engine: Engine, clock: Clock, seconds: float) -> None:
    """So long ago were all workers seen and all inabilities noted."""
    clock.now += seconds
    with writing(engine) as connection:
        connection.execute(update(WorkerRow).values(seen_at=WorkerRow.seen_at - seconds))
        connection.execute(update(UnableWorkerRow).values(until=UnableWorkerRow.until - seconds))


def test_without_another_worker_a_job_fails_at_once(engine: Engine) -> None:
    ability, _ = _ability(engine)
    assert not ability.leaves_to_others(NO_KEY, "job", QUEUE)
    note_alive(engine, "one", "me", [QUEUE])
    note_alive(engine, "two", "another", ["prepare", "train"])
    assert not ability.leaves_to_others(NO_KEY, "job", QUEUE)


def test_work_is_left_to_a_worker_that_lives_and_may_be_able(engine: Engine) -> None:
    one, _ = _ability(engine)
    two, _ = _ability(engine, "two")
    for name in ("one", "two"):
        note_alive(engine, name, name, [QUEUE, "train"])
    assert one.leaves_to_others(NO_FILE, "job", QUEUE)
    assert not two.leaves_to_others(NO_FILE, "job", QUEUE)  # it was left to this one
    assert two.leaves_to_others(NO_FILE, "another job", QUEUE)
    note_gone(engine, "one")
    assert not two.leaves_to_others(NO_FILE, "another job", QUEUE)


def test_a_worker_that_was_alive_gets_two_minutes_to_come_back(engine: Engine) -> None:
    ability, clock = _ability(engine)
    note_alive(engine, "two", "two", [QUEUE])
    assert ability.leaves_to_others(NO_KEY, "job", QUEUE)
    _pass_time(engine, clock, PATIENCE_S - 5)
    assert ability.leaves_to_others(NO_KEY, "job", QUEUE)
    _pass_time(engine, clock, 10)
    assert not ability.leaves_to_others(NO_KEY, "job", QUEUE)


def test_who_was_last_seen_before_the_work_came_is_not_waited_for(engine: Engine) -> None:
    ability, clock = _ability(engine)
    note_alive(engine, "two", "two", [QUEUE])
    _pass_time(engine, clock, LIVE_S + 5)
    assert not ability.leaves_to_others(NO_KEY, "job", QUEUE)


def test_after_an_outage_of_the_database_others_get_the_time_to_be_seen_again(engine: Engine) -> None:
    ability, clock = _ability(engine)
    for name in ("one", "two"):
        note_alive(engine, name, name, [QUEUE])
    _pass_time(engine, clock, PATIENCE_S + 60)  # nobody could say that it lives
    assert ability.leaves_to_others(NO_KEY, "job", QUEUE)
    note_alive(engine, "one", "one", [QUEUE])
    assert ability.leaves_to_others(NO_KEY, "job", QUEUE)
    with writing(engine) as connection:
        connection.execute(update(WorkerRow).values(resumed_at=WorkerRow.resumed_at - RESUME_S - 1))
    assert not ability.leaves_to_others(NO_KEY, "job", QUEUE)  # the other one is gone


def test_moments_before_a_clock_was_set_back_do_not_count(engine: Engine) -> None:
    ability, clock = _ability(engine)
    note_alive(engine, "two", "two", [QUEUE])
    _pass_time(engine, clock, -7200)
    assert not ability.leaves_to_others(NO_KEY, "job", QUEUE)


def test_an_inability_holds_for_a_while_and_ends_with_the_first_success(engine: Engine) -> None:
    ability, clock = _ability(engine)
    ability.leaves_to_others(NO_KEY, "job", QUEUE)
    assert ability.lacks(MISTRAL) is NO_KEY
    clock.now += RETRY_S + 1
    assert ability.lacks(MISTRAL) is None  # it may try again
    assert ability.lacking() == []
    ability.succeeded(MISTRAL)
    with reading(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(UnableWorkerRow)) == 0


def test_a_key_that_is_refused_for_one_model_is_not_refused_for_all(engine: Engine) -> None:
    ability, _ = _ability(engine)
    ability.leaves_to_others(CredentialsRefused("403", is_about_mistral=False), "model:7", QUEUE)
    assert ability.lacks(MISTRAL) is None
    assert ability.lacking() == ["model:7"]


def test_rows_of_workers_long_gone_are_dropped(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(insert(WorkerRow).values(id="old", name="old", queues=",x,", seen_at=db_now() - 100_000))
    note_alive(engine, "new", "new", [QUEUE])
    with reading(engine) as connection:
        assert list(connection.scalars(select(WorkerRow.id))) == ["new"]


def test_options_of_a_newer_version_are_for_another_worker() -> None:
    with pytest.raises(WorkerUnable, match="'novelty'"):
        TrainSpec.read({"novelty": 1})


@pytest.fixture
def keyless(engine: Engine, mistral: StrictMistral, redis_url: str) -> Iterator[Mill]:
    """A worker whose key is refused."""
    settings = Settings(
        broker_url=redis_url, mistral_url=mistral.url, MISTRAL_API_KEY="another", texts_per_request=10, max_in_flight=8
    )
    runtime = InferenceRuntime.from_settings(
        settings, engine, RealtimeInference.from_settings(settings), Ability(engine, "keyless", clock=Clock())
    )
    yield Mill(engine, runtime, mistral, settings)
    runtime.close()


def test_a_batch_whose_key_one_worker_lacks_is_completed_by_the_other(mill: Mill, keyless: Mill) -> None:
    keyless.fake = mill.fake
    keyless.sender = mill.sender
    note_alive(mill.engine, "keyless", "bad", [QUEUE])
    note_alive(mill.engine, "good", "good", [QUEUE])
    texts = some_texts(200)
    batch = mill.submit(texts, chunk_texts=50)
    for _ in range(20):  # each message is put back, and after the first Mistral is not asked again
        message, _ = mill.fake.waiting.popleft()
        keyless.work(message.job_id, message.chunk)
    refused = mill.mistral.requests
    assert refused <= 8
    assert mill.status(batch)["state"] == "running"
    assert len(mill.fake.waiting) == 4
    mill.run(batch)
    assert_all_labelled(mill, batch, texts)
    assert_billed_once(mill, texts)
    assert mill.mistral.requests == refused + 20


def test_a_worker_whose_key_works_again_takes_work_again(mill: Mill, keyless: Mill, mistral: StrictMistral) -> None:
    note_alive(mill.engine, "good", "good", [QUEUE])
    batch = keyless.submit(some_texts(20))
    keyless.work(batch)
    ability = keyless.runtime.ability
    assert ability.lacks(MISTRAL) is not None
    keyless.runtime._inference._key = KEY  # Mistral accepts it now
    keyless.runtime._inference._client = None
    ability._clock.now += RETRY_S + 1  # type: ignore[attr-defined] # the clock of this test
    assert keyless.run(batch)["state"] == "completed"
    with reading(mill.engine) as connection:
        assert connection.scalar(select(func.count()).select_from(UnableWorkerRow)) == 0


def test_what_one_model_is_refused_for_stops_no_other_batch(mill: Mill) -> None:
    def refuse(texts: list[str], body: dict[str, Any]) -> web.Response | None:
        return web.Response(status=403, body=b"{}") if body["model"] == "ft:classifier:secret" else None

    mill.mistral.faults = [refuse]
    note_alive(mill.engine, "another", "another", [QUEUE])
    secret = mill.submit(some_texts(20), model="ft:classifier:secret")
    open_ = mill.submit(some_texts(40))
    for _ in range(6):
        message, _ = mill.fake.waiting.popleft()
        mill.work(message.job_id, message.chunk)
    assert mill.status(open_)["state"] == "completed"
    assert mill.status(secret)["state"] == "running"
    assert mill.mistral.requests <= 2 + 4  # the refused model was asked by one claim alone
    note_gone(mill.engine, "another")
    with writing(mill.engine) as connection:
        connection.execute(update(UnableWorkerRow).values(until=0.0))
    assert mill.run(secret)["error_code"] == "credentials_refused"


def test_a_method_that_is_not_known_yet_is_left_to_a_newer_worker(mill: Mill) -> None:
    with writing(mill.engine) as connection:
        connection.execute(
            insert(ModelRow).values(
                name="m",
                version=1,
                promoted=True,
                method="telepathy",
                remote_model="m",
                label_schema=[{"name": "t", "labels": ["a"]}],
            )
        )
    note_alive(mill.engine, "newer", "newer", [QUEUE])
    batch = mill.submit(some_texts(20), model="m")
    mill.work(batch)
    assert mill.status(batch)["state"] == "running"
    note_gone(mill.engine, "newer")
    document = mill.run(batch)
    assert (document["state"], document["error_code"]) == ("failed", "worker_unable")
    assert "'telepathy', which this worker does not know" in document["error"]
