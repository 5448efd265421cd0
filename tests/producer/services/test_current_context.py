"""A client goes on when the `labelmill up` that it uses was started again: with other addresses each time."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from command_line import NOBODY_REDIS, ROWS

from labelmill import AsyncClient, Client
from labelmill.core.running_stack import STACK_FILE, write_stack_file
from labelmill.core.settings import load_settings
from labelmill.handles import Preparation

FOLDER = Path(".labelmill")


@pytest.fixture(autouse=True)
def _database(sqlite_template: Path) -> None:
    FOLDER.mkdir()
    shutil.copy(sqlite_template, FOLDER / "labelmill.db")


@pytest.fixture
def broker(redis_url: str) -> Iterator[str]:
    """The address of an empty Redis."""
    address = f"{redis_url.rsplit('/', 1)[0]}/5"
    with redis.Redis.from_url(address) as client:
        client.flushdb()
        yield address
        client.flushdb()


def start_stack(broker_url: str, database: Path = FOLDER / "labelmill.db", folder: Path = FOLDER) -> None:
    """What `labelmill up` writes when it is ready."""
    write_stack_file(folder, {"broker_url": broker_url, "database_url": f"sqlite:///{database.absolute()}"})


def stop_stack() -> None:
    (FOLDER / STACK_FILE).unlink()


def submit(client: Client) -> Preparation:
    return client.prepare("d", ROWS, targets=["intent=intent"])


def messages(broker: str) -> int:
    with redis.Redis.from_url(broker) as client:
        return sum(client.llen(key) for key in client.keys("prepare*"))  # type: ignore[misc, union-attr]


def test_a_client_follows_a_stack_that_was_started_again(broker: str) -> None:
    start_stack(NOBODY_REDIS)
    with Client() as client:
        first = submit(client)
        assert "starts when Redis is back" in first.warnings[0]
        stop_stack()
        assert submit(client).warnings  # the stack is down
        start_stack(broker)
        after = submit(client)
        assert after.warnings == ()
        assert messages(broker) == 1
        assert client.settings.broker_url == broker
        assert {job["id"] for job in client.jobs()} >= {first.id, after.id}  # the same database


def test_credentials_that_redis_no_longer_takes_are_replaced(broker: str) -> None:
    start_stack(broker.replace("redis://", "redis://former:password@"))
    with Client() as client:
        assert "password" in submit(client).warnings[0]
        start_stack(broker)
        assert submit(client).warnings == ()


def test_an_asynchronous_client_follows_it_too(broker: str) -> None:
    async def main() -> None:
        async with AsyncClient() as client:
            assert (await client.prepare("d", ROWS, targets=["intent=intent"])).warnings
            start_stack(broker)
            jobs = await asyncio.gather(*(client.prepare(f"d{n}", ROWS, targets=["intent=intent"]) for n in range(4)))
            assert [job.warnings for job in jobs] == [()] * 4

    start_stack(NOBODY_REDIS)
    asyncio.run(main())
    assert messages(broker) == 4


def test_a_client_finds_a_stack_that_is_started_after_it(broker: str, tmp_path: Path) -> None:
    with Client() as client:  # on the default address, where tests have no Redis to rely on
        start_stack(broker)
        os.chdir(tmp_path)
        assert submit(client).warnings == ()
    assert messages(broker) == 1


@pytest.mark.parametrize("named_by", ["argument", "environment", "settings"])
def test_an_address_that_was_named_is_kept(broker: str, monkeypatch: pytest.MonkeyPatch, named_by: str) -> None:
    start_stack("redis://127.0.0.1:2/0")
    if named_by == "environment":
        monkeypatch.setenv("LABELMILL_BROKER_URL", NOBODY_REDIS)
        client = Client()
        monkeypatch.delenv("LABELMILL_BROKER_URL")
    elif named_by == "argument":
        client = Client(broker_url=NOBODY_REDIS)
    else:
        client = Client(load_settings(broker_url=NOBODY_REDIS))
    with client:
        start_stack(broker)
        assert submit(client).warnings
        assert client.settings.broker_url == NOBODY_REDIS
    assert messages(broker) == 0


def test_a_stack_on_another_database_is_followed_there(broker: str, sqlite_template: Path) -> None:
    other = Path("other.db")
    shutil.copy(sqlite_template, other)
    start_stack(broker)
    with Client() as client:
        first = submit(client)
        start_stack(broker, other)
        assert client.jobs() == []
        second = submit(client)
        start_stack(broker)
        assert [job["id"] for job in client.jobs()] == [first.id]
    with Client(database_url=f"sqlite:///{other.absolute()}") as client:
        assert [job["id"] for job in client.jobs()] == [second.id]


def test_calls_of_many_threads_get_the_new_connections_once(broker: str) -> None:
    start_stack(NOBODY_REDIS)
    with Client() as client:
        start_stack(broker)
        together, contexts = threading.Barrier(8), []

        def call() -> None:
            together.wait()
            contexts.append(client.context)

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {id(context.sender) for context in contexts} == {id(client.context.sender)}
