"""Comparisons over evaluations that a worker made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from aiohttp import web
from command_line import NOBODY_REDIS
from sqlalchemy import update
from sqlalchemy.engine import Engine
from strict_mistral import LABELS, StrictMistral, label_of, ok, refuse_texts_with
from workshop import Workshop

from labelmill.cli.compare import compare
from labelmill.cli.context import Flags, remember_flags
from labelmill.client import Client
from labelmill.contracts.errors import InvalidInput, KeyTaken
from labelmill.core.database import writing
from labelmill.core.database.tables import EvaluationRow
from labelmill.core.money.prices import PriceList
from labelmill.services import models as registry

SCHEMA = [
    {"name": "intent", "labels": sorted(LABELS), "multi": False},
    {"name": "parity", "labels": ["even", "odd"], "multi": False},
]


def row(number: int) -> dict[str, Any]:
    text = f"text {number} {'x' * (number % 4)}"
    return {"text": text, "labels": {"intent": label_of(text), "parity": "odd" if number % 2 else "even"}}


def by_model(texts: list[str], body: dict[str, Any]) -> web.Response:
    """`good` is always right, `poor` never in parity and in every third intent."""
    results = []
    for text in texts:
        number = int(text.split()[1])
        poor = body["model"] != "ft:classifier:good"
        label = "alpha" if poor and number % 3 == 0 else label_of(text)
        odd = (number % 2 == 1) != poor
        results.append(
            {
                "intent": {"scores": {name: 0.85 if name == label else 0.05 for name in LABELS}},
                "parity": {"scores": {"odd": 0.9 if odd else 0.1, "even": 0.1 if odd else 0.9}},
            }
        )
    return ok(results)


@pytest.fixture
def shop(engine: Engine, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    with StrictMistral() as mistral:
        mistral.faults.append(by_model)
        made = Workshop(engine, mistral, redis_url, tmp_path)
        made.dataset("small", SCHEMA, test=[row(number) for number in range(90)])
        made.model("good", SCHEMA)
        made.model("poor", SCHEMA)
        yield made
        made.close()


@pytest.fixture
def client(shop: Workshop, database_url: str) -> Iterator[Client]:
    client = Client(shop.resources.settings.model_copy(update={"database_url": database_url}))
    opened = client.context
    client.context = replace(opened, sender=shop.sender)
    yield client
    opened.close()


def test_models_are_compared_on_the_same_rows(shop: Workshop, client: Client) -> None:
    jobs = client.compare(["good", "poor", "good@1"], "small")
    assert len(jobs) == 2
    for job in jobs:
        assert shop.run(job.id)["state"] == "completed"
    document = client.comparison([job.id for job in jobs])
    assert [one["model"] for one in document["models"]] == ["good@1", "poor@1"]
    intent = document["targets"]["intent"]
    wrong = sum(number % 3 == 0 and label_of(row(number)["text"]) != "alpha" for number in range(90))
    assert intent["accuracies"] == {"good@1": 1.0, "poor@1": pytest.approx(1 - wrong / 90)}
    (compared,) = intent["comparisons"]
    assert (compared["only_best_right"], compared["only_this_right"]) == (wrong, 0)
    assert compared["significantly_worse"]
    assert document["targets"]["parity"]["accuracies"]["poor@1"] == 0.0
    assert document["overall"]["accuracies"] == {"good@1": 1.0, "poor@1": 0.0}
    assert document["verdict"].startswith("take good@1" if document["overall"]["cheapest_not_worse"] else "good@1")


def comparison_with_one_trained_on(shop: Workshop, client: Client, rows: int) -> dict[str, Any]:
    """`good` beside a version of `poor` that was trained on the first `rows` of the test split."""
    trained = shop.dataset("source", SCHEMA, train=[row(number) for number in range(rows)])
    shop.model("poor", SCHEMA, version=2, promoted=False, remote_model="ft:classifier:poor", dataset_id=trained)
    jobs = client.compare(["good", "poor@2"], "small")
    for job in jobs:
        shop.run(job.id)
    return client.comparison([job.id for job in jobs])


def test_rows_that_a_model_was_trained_on_are_left_out(shop: Workshop, client: Client) -> None:
    document = comparison_with_one_trained_on(shop, client, 60)
    wrong = sum(number % 3 == 0 and label_of(row(number)["text"]) != "alpha" for number in range(60, 90))
    intent = document["targets"]["intent"]
    assert (intent["rows"], document["overall"]["rows"]) == (30, 30)
    assert intent["accuracies"]["poor@2"] == pytest.approx(1 - wrong / 30)
    low, high = intent["intervals"]["poor@2"]
    assert low < 1 - wrong / 30 < high
    assert intent["comparisons"][0]["only_best_right"] == wrong
    assert [one["seen_in_training"] for one in document["models"]] == [None, 60]
    (warning,) = document["warnings"]
    assert "(poor@2 60)" in warning
    assert ": 60 left out of the comparison" in warning


def test_a_split_that_a_model_was_trained_on_says_nothing(shop: Workshop, client: Client) -> None:
    document = comparison_with_one_trained_on(shop, client, 90)
    assert document["targets"]["intent"]["rows"] == 90
    assert "say nothing about texts to come" in document["warnings"][0]


def test_a_comparison_with_failed_rows_ends_with_3(shop: Workshop, client: Client, database_url: str) -> None:
    shop.mistral.faults.insert(0, refuse_texts_with("text 5 x"))
    for job in client.compare(["good", "poor"], "small"):
        assert shop.run(job.id)["summary"]["failed"] == 1
    with ExitStack() as at_the_end:
        remember_flags(Flags(database_url=database_url, broker_url=NOBODY_REDIS), at_the_end)
        with pytest.raises(typer.Exit) as ended:
            compare(["good", "poor"], "small", wait=False)
    remember_flags(Flags(), ExitStack())
    assert ended.value.exit_code == 3


def test_a_version_is_not_compared_with_itself(shop: Workshop, client: Client) -> None:
    with pytest.raises(InvalidInput, match="good and good@1 are the same version"):
        client.compare(["good", "good@1"], "small")
    assert not shop.queue.waiting


def test_a_comparison_has_a_key_metadata_and_a_cap(shop: Workshop, client: Client) -> None:
    asked: dict[str, Any] = {"idempotency_key": "k", "metadata": {"team": "a"}}
    first = client.compare(["good", "poor"], "small", **asked)
    assert [job.status()["metadata"] for job in first] == [{"team": "a"}] * 2
    with writing(shop.engine) as connection:  # so that no equal one is found but by the key
        connection.execute(update(EvaluationRow).values(options={"thresholds": {"intent": 0.5}}))
    assert [job.id for job in client.compare(["good", "poor"], "small", **asked)] == [job.id for job in first]
    for other in (["good", "poor@1"], ["poor", "good"]):
        with pytest.raises(KeyTaken):
            client.compare(other, "small", **asked)
    with pytest.raises(KeyTaken):
        client.evaluate("good", "small", idempotency_key="k")
    for refused in ({"max_cost": -1.0}, {"max_cost": 1.0}, {"metadata": {"": "a"}}):
        with pytest.raises(InvalidInput):
            client.compare(["good", "poor"], "small", **refused)
    assert [job["id"] for job in client.jobs("evaluation")] == [job.id for job in reversed(first)]
    client.context = replace(
        client.context, prices=PriceList({"ft:classifier:good": (1.0, 0.0), "ft:classifier:poor": (1.0, 0.0)})
    )
    new = client.compare(["good", "poor"], "small", max_cost=0.25)
    assert [job.status()["max_cost"] for job in new] == [0.25] * 2


def test_nothing_is_measured_when_one_of_the_models_cannot_be(shop: Workshop, client: Client) -> None:
    shop.model("mood", [{"name": "mood", "labels": ["a", "b"], "multi": False}])
    with pytest.raises(InvalidInput, match="mood@1 answers mood"):
        client.compare(["good", "mood"], "small")
    assert not shop.queue.waiting


def test_an_evaluation_that_is_there_is_used_again(shop: Workshop, client: Client) -> None:
    first = client.compare(["good", "poor"], "small")
    assert [job.id for job in client.compare(["poor", "good"], "small")] == [job.id for job in reversed(first)]
    for job in first:
        shop.run(job.id)
    billed = shop.mistral.requests
    assert [job.id for job in client.compare(["good", "poor"], "small")] == [job.id for job in first]
    assert shop.mistral.requests == billed


def test_other_thresholds_other_rows_and_failures_are_measured_anew(shop: Workshop, client: Client) -> None:
    shop.dataset("other", SCHEMA, test=[row(number) for number in range(20)])
    (first, _) = client.compare(["good", "poor"], "small")
    shop.run(first.id)
    assert client.compare(["good", "poor"], "other")[0].id != first.id
    with writing(client.context.engine) as connection:
        registry.set_thresholds(connection, "good", ["intent=0.9"])
    second = client.compare(["good", "poor"], "small")[0]
    assert second.id != first.id
    found = shop.run(second.id)["metrics"]["intent"]
    assert (found["accuracy"], found["abstained"], found["accuracy_answered"]) == (0.0, 90, None)
    with writing(client.context.engine) as connection:
        connection.execute(update(EvaluationRow).where(EvaluationRow.id == second.id).values(state="failed"))
    assert client.compare(["good", "poor"], "small")[0].id not in (first.id, second.id)


def test_models_without_a_common_target_are_not_compared(shop: Workshop, client: Client) -> None:
    shop.model("half", [SCHEMA[0]])
    shop.model("other half", [SCHEMA[1]])
    shop.mistral.faults[:] = [
        lambda texts, body: ok(
            [
                {"parity": {"scores": {"odd": 1, "even": 0}}}
                if "other" in body["model"]
                else {"intent": {"scores": dict.fromkeys(LABELS, 0.25)}}
                for _ in texts
            ]
        )
    ]
    jobs = client.compare(["half", "other half"], "small")
    for job in jobs:
        shop.run(job.id)
    with pytest.raises(InvalidInput, match="no target in common"):
        client.comparison([job.id for job in jobs])
