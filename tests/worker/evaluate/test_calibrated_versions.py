"""A version's temperature is applied to what it classifies, in one piece for each batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from asked import submit_batch, submit_evaluation
from sqlalchemy import update
from sqlalchemy.engine import Engine
from strict_mistral import LABELS, StrictMistral, label_of, ok
from workshop import Workshop

from labelmill.contracts.calibration import temperatures_of
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import ModelRow
from labelmill.services import models as registry
from labelmill.services.evaluations import find_evaluation
from labelmill.services.results.reading import read_results
from labelmill_worker.inference.models.temperature import scaled

NAMES = sorted(LABELS)
TAGS = ["long", "odd"]
SCHEMA = [{"name": "intent", "labels": NAMES, "multi": False}, {"name": "tags", "labels": TAGS, "multi": True}]


def row(number: int) -> dict[str, Any]:
    text = f"text {number} {'x' * (number % 4)}"
    rng = np.random.default_rng(number)
    tags = [tag for tag, holds in zip(TAGS, (number % 4 > 1, number % 2 == 1), strict=True) if holds]
    wrong = rng.random() < 0.3
    return {"text": text, "labels": {"intent": NAMES[number % 4] if wrong else label_of(text), "tags": tags}}


def too_sure(texts: list[str], body: dict[str, Any]) -> web.Response:
    """More sure of the answer than it is right."""
    results = []
    for text in texts:
        rng = np.random.default_rng(sum(text.encode()))
        logits = rng.normal(size=4) * 2
        logits[NAMES.index(label_of(text))] += 6
        shares = np.exp(logits) / np.exp(logits).sum()
        tags = 1 / (1 + np.exp(-rng.normal(size=2) * 5))
        named = {"intent": zip(NAMES, shares.tolist(), strict=True), "tags": zip(TAGS, tags.tolist(), strict=True)}
        results.append({name: {"scores": dict(pairs)} for name, pairs in named.items()})
    return ok(results)


@pytest.fixture
def shop(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    mistral.faults.append(too_sure)
    made = Workshop(engine, mistral, redis_url, tmp_path)
    made.dataset(
        "small",
        SCHEMA,
        validation=[row(number) for number in range(200, 320)],
        test=[row(number) for number in range(90)],
    )
    made.model("m", SCHEMA, thresholds={"intent": 0.9, "tags": {"long": 0.7, "odd": 0.2}})
    yield made
    made.close()


def submit(shop: Workshop, texts: list[str], **options: Any) -> str:
    source = shop.folder / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return submit_batch(shop.engine, shop.sender, source=str(source), model="m", **options)


def calibrate(shop: Workshop) -> dict[str, float]:
    done = shop.run(submit_evaluation(shop.engine, shop.sender, model="m", dataset="small", calibrate=True))
    assert done["state"] == "completed", done
    return temperatures_of(version(shop).calibration)


def version(shop: Workshop) -> ModelRow:
    with reading(shop.engine) as connection:
        return registry.resolve_model(connection, "m")


def rows_of(shop: Workshop, batch_id: str) -> list[dict[str, Any]]:
    return [one["predictions"] for one in read_results(shop.engine, batch_id)]


def table(rows: list[dict[str, Any]], target: str, labels: list[str]) -> np.ndarray:
    return np.array([[one[target]["scores"][label] for label in labels] for one in rows])


TEXTS = [row(number)["text"] for number in range(1000, 1200)]


def test_a_temperature_that_was_fitted_is_what_batches_are_answered_at(shop: Workshop) -> None:
    before = rows_of(shop, shop.run(submit(shop, TEXTS))["id"])
    old = version(shop).thresholds or {}
    temperatures = calibrate(shop)
    assert temperatures["intent"] > 1.2
    after = rows_of(shop, shop.run(submit(shop, TEXTS))["id"])
    for target, labels, multi in (("intent", NAMES, False), ("tags", TAGS, True)):
        expected = scaled(table(before, target, labels), temperatures[target], multi=multi)
        assert table(after, target, labels) == pytest.approx(expected, abs=1e-3)  # a float32 near 1 is coarse
    assert [one["tags"]["labels"] for one in after] == [one["tags"]["labels"] for one in before]
    abstained = [sum(one["intent"].get("abstained", False) for one in rows) for rows in (before, after)]
    assert abs(abstained[0] - abstained[1]) <= 0.1 * len(TEXTS)
    new = version(shop).thresholds or {}
    assert new["intent"] < old["intent"]
    with reading(shop.engine) as connection:
        shown = registry.lineage(connection, "m")
    assert shown["temperatures"] == temperatures
    assert shown["calibration"]["intent"]["split"] == "validation"


def test_a_second_calibration_is_fitted_to_scores_without_a_temperature(shop: Workshop) -> None:
    first, thresholds = calibrate(shop), version(shop).thresholds
    assert calibrate(shop) == pytest.approx(first, rel=1e-6)
    again = version(shop).thresholds or {}
    assert again["intent"] == pytest.approx((thresholds or {})["intent"], rel=1e-2)
    assert again["tags"] == pytest.approx((thresholds or {})["tags"], rel=1e-5)


def test_an_evaluation_from_before_the_temperature_is_not_taken_for_one_with_it(shop: Workshop) -> None:
    shop.run(submit_evaluation(shop.engine, shop.sender, model="m", dataset="small"))
    with reading(shop.engine) as connection:
        assert find_evaluation(connection, "m", "small", "test") is not None
    calibrate(shop)
    with reading(shop.engine) as connection:
        assert find_evaluation(connection, "m", "small", "test") is None


def test_a_batch_in_work_keeps_the_scale_that_it_began_with(shop: Workshop) -> None:
    reference = rows_of(shop, shop.run(submit(shop, TEXTS))["id"])
    batch_id = submit(shop, TEXTS)
    held = list(shop.queue.waiting)
    shop.queue.waiting.clear()
    calibrate(shop)
    shop.queue.waiting.extend(held)
    shop.run(batch_id)
    assert rows_of(shop, batch_id) == reference


def test_the_cache_mixes_no_answers_of_two_temperatures(shop: Workshop) -> None:
    shop.run(submit(shop, TEXTS))
    assert shop.run(submit(shop, TEXTS, cache=True))["cached"] == len(TEXTS)
    calibrate(shop)
    asked_anew = shop.run(submit(shop, TEXTS, cache=True))
    assert asked_anew["cached"] == 0
    reused = shop.run(submit(shop, TEXTS, cache=True))
    assert reused["cached"] == len(TEXTS)
    assert rows_of(shop, reused["id"]) == rows_of(shop, asked_anew["id"])


def test_a_key_finds_its_batch_whatever_became_of_the_version_since(shop: Workshop) -> None:
    batch_id = submit(shop, TEXTS, idempotency_key="once")
    shop.run(batch_id)
    calibrate(shop)
    assert submit(shop, TEXTS, idempotency_key="once") == batch_id


def test_a_temperature_that_was_only_shown_so_far_is_not_applied_until_it_is_fitted_again(shop: Workshop) -> None:
    with writing(shop.engine) as connection:
        connection.execute(update(ModelRow).values(calibration={"intent": {"temperature": 7.0, "rows": 60}}))
    before = rows_of(shop, shop.run(submit(shop, TEXTS))["id"])
    done = shop.run(submit_evaluation(shop.engine, shop.sender, model="m", dataset="small"))
    assert done["metrics"]["intent"]["calibrated"]["temperature"] == 7.0
    assert max(one["intent"]["score"] for one in before) > 0.9
    assert calibrate(shop)["intent"] != 7.0


def test_scores_of_one_and_zero_get_no_temperature(shop: Workshop, mistral: StrictMistral) -> None:
    def bare(texts: list[str], body: dict[str, Any]) -> web.Response:
        return ok(
            [
                {
                    "intent": {"scores": {name: float(name == label_of(text)) for name in NAMES}},
                    "tags": {"scores": dict.fromkeys(TAGS, 0.0)},
                }
                for text in texts
            ]
        )

    mistral.faults[:] = [bare]
    assert calibrate(shop) == {}
