"""Celery's classes as a worker has them: each test shows one thing that they count on of Celery or kombu."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery.concurrency.thread import TaskPool as ThreadPool
from celery.worker.consumer import Consumer
from kombu import Connection

from labelmill.core.queue.application import QueueApp
from labelmill.core.queue.wire.transport import CheckingTransport
from labelmill.core.settings import Settings
from labelmill_worker.process import draining
from labelmill_worker.runtime.bootstrap import abort_requests
from labelmill_worker.runtime.celery_app import WorkerApp, WorkerConsumer, can_kill_tasks

TLS = "rediss://user:password@127.0.0.1:6380/3"


def _app(url: str) -> WorkerApp:
    return WorkerApp.of(Settings(broker_url=url, _env_file=None))


def _connections(app: QueueApp) -> Iterator[Connection]:
    yield app.connection()
    yield app.connection_for_read()
    yield app.connection_for_write()
    yield app.connection_for_write().clone()
    yield app.pool.connection
    yield app.amqp.producer_pool.connections.connection


@pytest.mark.parametrize("url", ["redis://:password@127.0.0.1:6379/0", TLS])
def test_every_connection_of_a_worker_checks_messages_and_says_explicitly_how_it_speaks_tls(url: str) -> None:
    app = _app(url)
    for connection in _connections(app):
        assert isinstance(connection.transport, CheckingTransport)
        assert connection.ssl == app.conf.broker_use_ssl
        if url == TLS:
            assert connection.ssl == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        else:
            assert not connection.ssl


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:password@127.0.0.1:6379/0", "redis://:**@127.0.0.1:6379/0"),
        (TLS, "rediss://user:**@127.0.0.1:6380/3"),
    ],
)
def test_the_url_of_a_connection_has_the_scheme_of_redis_by_which_flower_finds_it(url: str, shown: str) -> None:
    connection = _app(url).connection()
    assert connection.as_uri() == shown
    assert connection.as_uri(include_password=True) == shown.replace("**", "password")


def test_other_applications_of_the_process_keep_the_transport_of_kombu() -> None:
    code = (
        "import labelmill_worker.app\n"
        "from celery import Celery\n"
        "from labelmill.core.queue.application import QueueApp\n"
        "from labelmill.core.queue.sender import asking_app\n"
        "from labelmill.core.settings import Settings\n"
        "settings, own = Settings(), labelmill_worker.app.app\n"
        "apps = Celery(broker='redis://'), QueueApp.make(settings), asking_app(settings), own\n"
        "print(*(type(app.connection_for_write().transport).__name__ for app in apps))\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == ["Transport", "Transport", "CheckingTransport", "CheckingTransport"]


def test_a_task_event_is_sent_at_once_however_many_the_worker_would_gather(redis_url: str) -> None:
    app = _app(redis_url)
    with redis.Redis.from_url(redis_url) as client, client.pubsub() as heard:
        heard.psubscribe("*celeryev*")
        assert heard.get_message(timeout=30)
        with app.connection_for_write() as connection:
            dispatcher = app.events.Dispatcher(connection, hostname="one@host", buffer_group=["task"])
            dispatcher.send("task-started", uuid="1")
            message = heard.get_message(timeout=30)
    assert message is not None
    assert b"task.started" in message["channel"]


def _consumer(redis_url: str, **options: Any) -> Consumer:
    worker = _app(redis_url).WorkController(pool="solo", **options)
    consumer: Consumer = worker.consumer
    return consumer


def test_workers_listen_to_no_other_worker(redis_url: str) -> None:
    consumer = _consumer(redis_url, without_gossip=False, without_mingle=False)
    assert isinstance(consumer, WorkerConsumer)
    names = {step.name.rpartition(".")[2] for step in consumer.steps}
    assert {"Connection", "Events", "Control", "Tasks"} <= names
    assert not {"Mingle", "Gossip"} & names


def test_a_worker_of_threads_that_is_told_to_end_at_once_gives_its_requests_up(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    monkeypatch.setattr(draining, "force_shutdown", told.append)
    monkeypatch.setattr(Consumer, "cancel_active_requests", lambda _: told.append("killed"))
    consumer = _consumer(redis_url)
    consumer.pool = ThreadPool(1)
    assert not can_kill_tasks(consumer.pool)
    consumer.cancel_active_requests()
    assert told == [abort_requests]
    consumer.pool = SimpleNamespace(terminate_job=lambda *_: None)  # as prefork has it once it has started
    consumer.cancel_active_requests()
    assert told[1:] == ["killed"]
