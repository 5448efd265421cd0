"""Evaluations in this process, against a strict stand-in for Mistral: metrics are recomputed from exported rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from asked import cancel, submit_evaluation
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, log_loss
from sqlalchemy import select
from sqlalchemy.engine import Engine
from strict_mistral import LABELS, StrictMistral, label_of, ok, refuse_texts_with
from workshop import SCHEMA, Workshop

from labelmill.contracts.errors import InvalidInput
from labelmill.core.database import reading
from labelmill.core.database.analysis_codec import load_analysis, unpack_bits
from labelmill.core.database.tables import BatchRow, ModelRow
from labelmill.services.results.reading import read_results


def row(number: int, label: str | None = None) -> dict[str, Any]:
    text = f"text {number} {'x' * (number % 4)}"
    return {"text": text, "labels": {"intent": label or label_of(text)}}


def uneven(texts: list[str], body: dict[str, Any]) -> web.Response:
    """Scores with many digits, that sum to one and are sometimes wrong."""
    results = []
    for text in texts:
        rng = np.random.default_rng(len(text) * 7919 + sum(text.encode()))
        shares = rng.dirichlet(np.ones(4)) * 0.6
        shares[sorted(LABELS).index(label_of(text))] += 0.4
        results.append({"intent": {"scores": dict(zip(sorted(LABELS), shares.tolist(), strict=True))}})
    return ok(results)


@pytest.fixture
def shop(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    mistral.faults.append(uneven)
    made = Workshop(engine, mistral, redis_url, tmp_path)
    train = [row(number) for number in range(400, 460)]
    test = [row(number, "beta" if number % 9 == 0 else None) for number in range(90)]
    test += [test[3], test[4], {"text": "Text 400!", "labels": {"intent": "alpha"}}]
    dataset_id = made.dataset(
        "small", SCHEMA, train=train, validation=[row(number) for number in range(200, 260)], test=test
    )
    made.model("m", SCHEMA, dataset_id=dataset_id, dataset_fingerprint="print of small")
    yield made
    made.close()


def evaluate(shop: Workshop, **options: Any) -> dict[str, Any]:
    given = {"model": "m", "dataset": "small"} | options
    return shop.run(submit_evaluation(shop.engine, shop.sender, **given))


def truth_of(shop: Workshop, split: str = "test", target: str = "intent") -> list[Any]:
    lines = shop.split_file("small", split).read_text().splitlines()
    return [json.loads(line)["labels"][target] for line in lines]


@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")  # float32 scores do so nearly
def test_metrics_are_those_of_the_exported_predictions(shop: Workshop) -> None:
    done = evaluate(shop)
    assert done["state"] == "completed", done
    found, exported, real = done["metrics"]["intent"], list(read_results(shop.engine, done["batch"])), truth_of(shop)
    assert len(exported) == len(real) == 93
    answers = [one["predictions"]["intent"] for one in exported]
    given = [answer["label"] for answer in answers]
    table = np.array([[answer["scores"][label] for label in sorted(LABELS)] for answer in answers])
    assert found["accuracy"] == pytest.approx(accuracy_score(real, given), rel=0, abs=1e-9)
    assert found["macro_f1"] == pytest.approx(f1_score(real, given, average="macro"), rel=0, abs=1e-9)
    assert found["log_loss"] == pytest.approx(log_loss(real, table), rel=0, abs=1e-9)
    expected = brier_score_loss(real, table, labels=sorted(LABELS))
    assert found["brier"] == pytest.approx(expected, rel=0, abs=1e-9)
    summary = done["summary"]
    assert (summary["rows"], summary["duplicates"], summary["failed"]) == (93, 2, 0)
    assert summary["tokens_are"] == "counted"
    assert (summary["seen_in_training"], found["unseen_rows"]) == (1, 92)
    with reading(shop.engine) as connection:
        target = load_analysis(connection, done["id"])["targets"]["intent"]
    assert unpack_bits(target["correct"], 93).tolist() == [a == b for a, b in zip(real, given, strict=True)]
    worst = target["mistakes"][0]
    assert worst["text"] == exported[worst["row"]]["text"]
    assert (worst["label"], worst["predicted"]) == (real[worst["row"]], given[worst["row"]])


def test_failed_rows_are_wrong_and_counted(shop: Workshop, mistral: StrictMistral) -> None:
    mistral.faults.insert(0, refuse_texts_with("text 33 "))
    done = evaluate(shop)
    found = done["metrics"]["intent"]
    assert (found["failed"], found["answered"], done["summary"]["failures"]) == (1, 92, {"request_refused": 1})
    exported = {one["row"]: one for one in read_results(shop.engine, done["batch"])}
    right = sum(
        exported[at]["error"] is None and exported[at]["predictions"]["intent"]["label"] == label
        for at, label in enumerate(truth_of(shop))
    )
    assert found["accuracy"] == pytest.approx(right / 93)


def test_a_temperature_is_fitted_on_validation_and_kept_with_the_version(shop: Workshop) -> None:
    done = evaluate(shop, calibrate=True)
    assert done["state"] == "completed", done
    assert done["calibration_batch"] is not None
    kept = done["summary"]["calibration"]["intent"]
    assert kept["rows"] == 60
    assert kept["log_loss_after"] <= kept["log_loss_before"]
    with reading(shop.engine) as connection:
        calibration = connection.scalar(select(ModelRow.calibration).where(ModelRow.name == "m"))
    assert calibration["intent"]["temperature"] == kept["temperature"]
    again = evaluate(shop)
    assert again["calibration_batch"] is None
    before, after = done["metrics"]["intent"], again["metrics"]["intent"]
    assert after["calibrated"] == pytest.approx(before["calibrated"], abs=1e-3)
    assert all(after[name] == after["calibrated"][name] for name in ("log_loss", "brier", "ece"))
    assert before["log_loss"] != pytest.approx(after["log_loss"], abs=1e-3)


def test_labels_that_only_one_side_knows_are_named(shop: Workshop) -> None:
    schema = [{"name": "intent", "labels": ["alpha", "beta", "omega"], "multi": False}]
    rows = [row(1, "alpha"), row(2, "beta"), row(3, "omega"), row(4, "omega")]
    shop.dataset("other", schema, test=rows)
    found = evaluate(shop, dataset="other")["metrics"]["intent"]
    assert found["unknown_labels"] == {"omega": 2}
    assert found["absent_labels"] == ["delta", "gamma"]
    assert found["per_label"]["omega"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2}
    assert found["log_loss"] > 36.04 / 2


def test_a_raw_id_learns_multi_label_targets_from_the_dataset(shop: Workshop, mistral: StrictMistral) -> None:
    mistral.faults[:] = [lambda texts, body: ok([{"tags": {"scores": {"a": 0.9, "b": 0.6}}} for _ in texts])]
    schema = [{"name": "tags", "labels": ["a", "b"], "multi": True}]
    rows = [{"text": f"t{n}", "labels": {"tags": ["a", "b"] if n % 2 else ["a"]}} for n in range(10)]
    shop.dataset("tagged", schema, test=rows)
    found = evaluate(shop, dataset="tagged", model="ft:classifier:raw")["metrics"]["tags"]
    assert (found["accuracy"], found["per_label"]["b"]["precision"]) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "holdout"}, "no rows in a split 'holdout'; it has train, validation, test"),
        ({"calibrate": True, "split": "validation"}, "evaluate another one"),
        ({"dataset": "mood"}, "has labels for mood, m@1 answers intent"),
        ({"dataset": "several"}, "'intent' is multi-label in dataset 'several'"),
        ({"dataset": "untested"}, "no rows in a split 'test'"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is_paid(
    shop: Workshop, options: dict[str, Any], words: str
) -> None:
    shop.dataset("mood", [{"name": "mood", "labels": ["x", "y"], "multi": False}], test=[row(1)])
    shop.dataset("several", [{**SCHEMA[0], "multi": True}], test=[row(1)])
    shop.dataset("untested", SCHEMA, train=[row(1)], test=[])
    with pytest.raises(InvalidInput, match=words):
        submit_evaluation(shop.engine, shop.sender, **({"model": "m", "dataset": "small"} | options))


def test_a_cancelled_evaluation_stops_both_of_its_batches(shop: Workshop) -> None:
    job_id = submit_evaluation(shop.engine, shop.sender, model="m", dataset="small", calibrate=True)
    shop.step()
    cancel(shop.engine, shop.sender, job_id)
    document = shop.status(job_id)
    states = [shop.status(document[name])["state"] for name in ("batch", "calibration_batch")]
    assert [document["state"], *states] == ["cancelled"] * 3


def test_an_evaluation_whose_batch_fails_stops_the_other_one(shop: Workshop, mistral: StrictMistral) -> None:
    job_id = submit_evaluation(shop.engine, shop.sender, model="m", dataset="small", calibrate=True)
    shop.step()
    shop.split_file("small", "test").unlink()
    done = shop.run(job_id)
    assert (done["state"], "prepare the dataset again" in done["error"]) == ("failed", True)
    with reading(shop.engine) as connection:
        assert not connection.scalars(select(BatchRow.id).where(BatchRow.state.in_(("queued", "running")))).all()
