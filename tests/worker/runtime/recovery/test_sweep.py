"""Recovery finds what Redis lost, sends it once, and costs a quiet system next to nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis
from sqlalchemy import insert, text, update
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.messages import PREPARE, JobMessage
from labelmill.core.database import db_now, writing
from labelmill.core.database.tables import BatchRow, ChunkRow, DatasetRow, LockRow, ModelRow, TrainingRow, utc_now
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill_worker.runtime.bootstrap import ProcessResources
from labelmill_worker.runtime.recovery.sweep import sweep_if_due
from labelmill_worker.store.locks import Held, Taken, release_lease, take_lease

_CLASSIFY, _PREPARE, _TRAIN = "classify\x06\x163", "prepare\x06\x163", "train\x06\x163"


@pytest.fixture
def resources(engine: Engine, redis_url: str, tmp_path: Path) -> ProcessResources:
    settings = Settings(broker_url=redis_url, data_dir=str(tmp_path), sweep_s=0.001)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return ProcessResources(settings, engine, MessageSender.connect(settings))


def _waiting(resources: ProcessResources, name: str) -> int:
    with redis.Redis.from_url(resources.settings.broker_url) as client:
        return int(client.llen(name))


def _sweep(resources: ProcessResources) -> None:
    with writing(resources.engine) as connection:
        connection.execute(update(LockRow).values(lease_until=0.0))
    sweep_if_due(resources.engine, resources.sender, resources.settings)


def _batch(connection: Connection, chunks: int, *, state: str = "running", chunk_state: str = "pending") -> int:
    if connection.scalar(text("SELECT count(*) FROM models")) == 0:
        connection.execute(insert(ModelRow).values(no=1, name="m", version=1, method="factory"))
    values = {"id": new_id(Kind.BATCH), "state": state, "model_no": 1, "model_ref": "m", "options": {}}
    number = connection.execute(insert(BatchRow).values(values).returning(BatchRow.no)).scalar_one()
    rows = [
        {
            "batch_no": number,
            "number": n,
            "state": chunk_state,
            "first_row": n,
            "rows": 1,
            "texts": 1,
            "sent_at": time.time() - 60,
        }
        for n in range(chunks)
    ]
    if rows:
        connection.execute(insert(ChunkRow), rows)
    return int(number)


def test_lost_messages_of_a_batch_are_sent_again_and_no_second_time(resources: ProcessResources) -> None:
    with writing(resources.engine) as connection:
        _batch(connection, 5)
    _sweep(resources)
    assert _waiting(resources, _CLASSIFY) == 5
    with writing(resources.engine) as connection:
        connection.execute(update(ChunkRow).values(sent_at=time.time() - 60))  # they wait for long, on a busy queue
    _sweep(resources)
    assert _waiting(resources, _CLASSIFY) == 5
    with redis.Redis.from_url(resources.settings.broker_url) as client:
        client.lpop(_CLASSIFY)
        client.lpop(_CLASSIFY)
    _sweep(resources)
    assert _waiting(resources, _CLASSIFY) == 5


def test_a_job_whose_message_waits_is_not_sent_a_second_time(resources: ProcessResources) -> None:
    job_id = new_id(Kind.DATASET)
    with writing(resources.engine) as connection:
        connection.execute(insert(DatasetRow).values(id=job_id, state="queued", name="n", spec={}, next_look_at=1.0))
    resources.sender.send(PREPARE, [JobMessage(job_id=job_id)])
    _sweep(resources)
    assert _waiting(resources, _PREPARE) == 1
    with redis.Redis.from_url(resources.settings.broker_url) as client:
        client.flushall()
    with writing(resources.engine) as connection:
        connection.execute(update(DatasetRow).values(next_look_at=1.0))
    _sweep(resources)
    assert _waiting(resources, _PREPARE) == 1


def test_a_job_whose_worker_died_is_sent_by_the_sweep_after_its_lease(resources: ProcessResources) -> None:
    job_id = new_id(Kind.DATASET)
    dead = {"id": job_id, "state": "preparing", "name": "n", "spec": {}, "lease_token": "t", "lease_until": 1.0}
    with writing(resources.engine) as connection:
        connection.execute(insert(DatasetRow).values(dead))
    _sweep(resources)
    _sweep(resources)
    assert _waiting(resources, _PREPARE) == 1


def test_an_ended_training_with_files_at_mistral_is_sent_until_they_are_deleted(resources: ProcessResources) -> None:
    with writing(resources.engine) as connection:
        for state, files in (("succeeded", {}), ("failed", None), ("running", {})):
            values = {"id": new_id(Kind.TRAINING), "state": state, "name": "n", "method": "factory", "dataset_id": "d"}
            due = {"next_look_at": db_now() + 60 if state == "running" else None, "finished_at": utc_now()}
            connection.execute(insert(TrainingRow).values(**values, options={}, remote_files=files, **due))
    _sweep(resources)
    _sweep(resources)
    assert _waiting(resources, _TRAIN) == 1


@pytest.mark.parametrize("back_s", [6 * 60, 5 * 3600])
def test_a_clock_set_back_does_not_put_sweeps_or_dead_chunks_off(resources: ProcessResources, back_s: float) -> None:
    with writing(resources.engine) as connection:
        _batch(connection, 2)
        connection.execute(update(ChunkRow).values(state="claimed", lease_token="t", lease_until=db_now() + back_s))
        connection.execute(insert(LockRow).values(name="sweep", lease_token="t", lease_until=db_now() + back_s))
    sweep_if_due(resources.engine, resources.sender, resources.settings)
    assert _waiting(resources, _CLASSIFY) == 0, "workers that live had no time to renew their leases"
    _sweep(resources)
    assert _waiting(resources, _CLASSIFY) == 2


def test_a_clock_set_back_does_not_put_off_what_was_to_come_in_a_minute(resources: ProcessResources) -> None:
    with writing(resources.engine) as connection:
        _batch(connection, 2)
        connection.execute(update(ChunkRow).values(sent_at=db_now() + 60))
    _sweep(resources)
    assert _waiting(resources, _CLASSIFY) == 0
    with writing(resources.engine) as connection:
        connection.execute(update(ChunkRow).values(sent_at=ChunkRow.sent_at + 3 * 60))
    _sweep(resources)
    assert _waiting(resources, _CLASSIFY) == 2


def test_many_processes_that_ask_at_once_get_one_lease_and_learn_when_it_ends(engine: Engine) -> None:
    found = [take_lease(engine, "sweep", 60) for _ in range(5)]
    assert [isinstance(one, Taken) for one in found] == [True, False, False, False, False]
    assert all(55 < one.for_s <= 60 for one in found if isinstance(one, Held))


def test_a_lease_that_was_given_back_is_free_and_counts_as_no_silence(engine: Engine) -> None:
    first = take_lease(engine, "sweep", 60)
    assert isinstance(first, Taken)
    release_lease(engine, "sweep", "somebody else's")
    assert isinstance(take_lease(engine, "sweep", 60), Held)
    release_lease(engine, "sweep", first.token)
    second = take_lease(engine, "sweep", 60)
    assert isinstance(second, Taken)
    assert second.free_for_s == 0.0
