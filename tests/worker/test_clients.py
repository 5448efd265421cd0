"""The Python clients: every call is that of a service, and what it returns is what the command line prints."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine
from strict_mistral import LABELS, StrictMistral
from workshop import Workshop

from labelmill import AsyncClient, Client
from labelmill.contracts.errors import BrokerUnavailable, InvalidInput, NotFound

SCHEMA = [{"name": "intent", "labels": LABELS, "multi": False}]


class DeadRedis:
    def send(self, *_: object, **__: object) -> None:
        raise BrokerUnavailable("Redis cannot be reached")


@pytest.fixture
def shop(engine: Engine, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    with StrictMistral() as mistral:
        made = Workshop(engine, mistral, redis_url, tmp_path)
        made.model("m", SCHEMA)
        made.dataset("d", SCHEMA, train=[{"text": f"t{n}", "labels": {"intent": "alpha"}} for n in range(4)])
        yield made
        made.close()


@pytest.fixture
def client(shop: Workshop, database_url: str) -> Iterator[Client]:
    made = Client(shop.resources.settings.model_copy(update={"database_url": database_url}))
    opened = made.context
    made.context = replace(opened, sender=shop.sender)
    yield made
    opened.close()


@pytest.fixture
def texts(tmp_path: Path) -> str:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(f'{{"text": "say {number}"}}\n' for number in range(30)))
    return str(path)


def test_a_batch_is_submitted_followed_and_read(shop: Workshop, client: Client, texts: str) -> None:
    batch = client.classify(texts, "m")
    assert (batch.status()["state"], batch.warnings) == ("queued", ())
    shop.run(batch.id)
    assert batch.wait()["rows"]["labelled"] == 30
    assert [row["text"] for row in batch.results()] == [f"say {number}" for number in range(30)]
    assert [job["id"] for job in client.jobs(kind="batch")] == [batch.id]


def test_lists_are_those_of_the_command_line(client: Client) -> None:
    assert [model["model"] for model in client.models()] == ["m@1"]
    assert [(one["name"], one["label_counts"]) for one in client.datasets()] == [("d", {"intent": len(LABELS)})]
    assert client.jobs(kind="training") == []


def test_a_parameter_that_is_wrong_is_named(client: Client, texts: str) -> None:
    for wrong, field in (
        (lambda: client.classify(texts, "m", priority="urgent"), "priority"),
        (lambda: client.classify(texts, "m", thresholds={"itnent": 0.5}), "thresholds"),
        (lambda: client.prepare("n", texts, targets=["intent"]), "targets"),
        (lambda: client.train("m", "d", steps=0, method="factory"), "steps"),
        (lambda: client.train("m", "d", shots=3), "shots"),
        (lambda: client.evaluate("m", "d", "test"), "split"),
        (lambda: client.jobs(kind="job"), "kind"),
    ):
        with pytest.raises(InvalidInput) as raised:
            wrong()
        assert raised.value.field == field
        assert "--" not in raised.value.message


def test_a_training_that_does_not_wait_is_not_approved(client: Client) -> None:
    training = client.train("m", "d", method="prompt", shots=1)
    with pytest.raises(InvalidInput, match="does not wait for approval"):
        training.approve()
    training.cancel()
    assert training.wait()["state"] == "cancelled"


def test_warnings_belong_to_the_call(client: Client, texts: str) -> None:
    client.context = replace(client.context, sender=DeadRedis())  # type: ignore[arg-type]
    first, second = client.classify(texts, "m"), client.job("batch_0")
    assert ["starts when Redis is back" in one for one in first.warnings] == [True]
    assert second.warnings == ()
    assert client.warnings == list(first.warnings)


def test_the_asynchronous_client_does_the_same(shop: Workshop, client: Client, texts: str) -> None:
    async def main() -> None:
        mine = AsyncClient(client)
        batch = await mine.classify(texts, "m")
        worker = threading.Thread(target=shop.run, args=(batch.id,))
        worker.start()
        document = await batch.wait(timeout_s=60, poll_s=0.05)
        worker.join()
        assert document["rows"]["labelled"] == 30
        assert [row["row"] async for row in batch.results()] == list(range(30))
        async for row in mine.results(batch.id):
            assert row["row"] == 0
            break  # what is left is not read
        assert [job["id"] for job in await mine.jobs(state="completed")] == [batch.id]
        with pytest.raises(NotFound):
            await mine.status("batch_0")
        with pytest.raises(InvalidInput):
            await mine.cancel(batch.id)

    asyncio.run(main())


def test_an_asynchronous_wait_ends_when_its_time_is_over(client: Client, texts: str) -> None:
    async def main() -> None:
        batch = await AsyncClient(client).classify(texts, "m")
        with pytest.raises(TimeoutError, match=r"is still queued after 0\.1 s"):
            await batch.wait(timeout_s=0.1, poll_s=0.02)

    asyncio.run(main())
