"""A precision that was asked for holds in at least nine of ten trainings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from asked import gather_report, submit_batch, submit_training
from memory_mistral import MemoryMistral
from scipy.stats import binom
from sqlalchemy import select, update
from sqlalchemy.engine import Engine
from strict_mistral import LABELS, StrictMistral, label_of, refuse_texts_with
from workshop import SCHEMA, PollingWorkshop, Workshop

from labelmill.cli.summaries import summary_of
from labelmill.cli.train import parse_precisions
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.label_schema import Target
from labelmill.contracts.messages import TRAIN, JobMessage
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import TrainingRow
from labelmill.report.parts import Note
from labelmill.services import models as registry
from labelmill.services.results.reading import read_results
from labelmill_worker.inference.answers import abstain_under, decide
from labelmill_worker.train.heads.certified import DELTA, NEVER_REACHED, certified_threshold, rows_needed
from labelmill_worker.train.heads.decisions import Wanted, choose_thresholds

RUNS = 300
ONE = Target("topic", ("a", "b", "c"))
SEVERAL = Target("tags", ("x", "y"), multi=True)


def holds_often_enough(held: int, runs: int = RUNS) -> bool:
    """Whether so few successes are no sign of a rate under 1 - delta."""
    return bool(binom.cdf(held, runs, 1 - DELTA) > 0.01)


@pytest.mark.parametrize("rows", [60, 200, 600])
@pytest.mark.parametrize(("base", "rise"), [(0.3, 3.0), (0.6, 6.0), (0.95, 1.0)])
def test_a_certified_precision_holds(rows: int, base: float, rise: float) -> None:
    rng = np.random.default_rng(rows)

    def chance(scores: Any) -> Any:
        return base + (0.999 - base) * (1 - (1 - scores) ** rise)

    everything = np.sort(rng.random(100_000).astype(np.float32))
    above = np.cumsum(chance(everything)[::-1])[::-1] / np.arange(len(everything), 0, -1)
    held = 0
    for _ in range(RUNS):
        scores = rng.random(rows).astype(np.float32)
        found = certified_threshold(scores, rng.random(rows) < chance(scores), 0.95)
        held += found.threshold is None or above[np.searchsorted(everything, found.threshold)] >= 0.95
    assert holds_often_enough(held), held


def test_most_of_what_could_be_answered_is() -> None:
    rng, kept = np.random.default_rng(1), []
    for _ in range(100):
        scores = rng.random(1_000).astype(np.float32)
        right = rng.random(1_000) < 0.6 + 0.4 * (1 - (1 - scores) ** 6)  # 0.979 of it has a precision of 0.95
        kept.append(certified_threshold(scores, right, 0.95).answers / 1_000)
    assert np.mean(kept) > 0.9


def test_what_cannot_be_certified_is_not_answered() -> None:
    few = rows_needed(0.95) - 1
    assert certified_threshold(np.linspace(0.5, 1, few).astype(np.float32), np.ones(few, bool), 0.95).threshold is None
    assert certified_threshold(np.empty(0, np.float32), np.empty(0, bool), 0.95).threshold is None
    alike = np.full(500, 0.7, np.float32)  # rows of one score are answered together
    assert certified_threshold(alike, np.arange(500) >= 100, 0.95).threshold is None
    assert certified_threshold(alike, np.arange(500) >= 5, 0.95).threshold == pytest.approx(0.7)


def answered(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of three labels, the last of which is given wrongly more often."""
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.full(3, 0.3), rows).astype(np.float32)
    top = scores.argmax(axis=1)
    right = rng.random(rows) < np.where(top == 2, 0.6, 0.97) + 0.03 * scores.max(axis=1)
    real = np.where(right, top, (top + 1) % 3)
    return scores, np.eye(3, dtype=bool)[real]


def test_a_label_may_have_a_precision_of_its_own() -> None:
    scores, truth = answered(3_000, seed=2)
    chosen = choose_thresholds(scores, truth, ONE, Wanted(precisions={"topic.a": 0.95, "topic.c": 0.99}), unseen=True)
    limits = cast("dict[str, float]", chosen.thresholds)
    assert limits["b"] == 0.0
    assert 0 < limits["a"] < 0.9
    assert limits["c"] == NEVER_REACHED
    threshold = abstain_under(ONE, {}, {"topic": limits})
    decided = decide(scores, ONE, threshold)
    top = scores.argmax(axis=1)
    assert decided.abstained[top == 2].all()
    assert not decided.abstained[top == 1].any()
    assert (decided.abstained[top == 0] == (scores.max(axis=1)[top == 0] < np.float32(limits["a"]))).all()
    assert decide(scores, ONE, abstain_under(ONE, {"topic": 0.0}, {"topic": limits})).abstained.sum() == 0
    assert "topic.c: a precision of 0.99 cannot be certified" in chosen.precisions[1]["said"]


def test_a_multi_label_target_gives_labels_from_the_certified_score_on() -> None:
    rng, held = np.random.default_rng(4), 0
    for _ in range(100):
        scores = rng.random((400, 2)).astype(np.float32)
        truth = rng.random((400, 2)) < scores**0.2
        found = choose_thresholds(scores, truth, SEVERAL, Wanted(precisions={"*": 0.95}), unseen=True).thresholds
        limit = cast("dict[str, float]", found)["x"]
        held += limit > 1 or (1 - limit**1.2) / 1.2 / (1 - limit) >= 0.95
    assert holds_often_enough(held, 100), held
    scores, truth = rng.random((400, 2)).astype(np.float32), rng.random((400, 2)) < 0.5
    chosen = choose_thresholds(scores, truth, SEVERAL, Wanted(precisions={"tags.x": 0.95}), unseen=True)
    limits = cast("dict[str, float]", chosen.thresholds)
    assert limits["x"] == NEVER_REACHED
    assert limits["y"] < 1  # tuned as ever


@pytest.fixture
def shop(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    made = PollingWorkshop(engine, mistral, redis_url, tmp_path, MemoryMistral())

    def rows(first: int, count: int) -> list[dict[str, Any]]:
        texts = [f"text {number} {'x' * (number % 4)}" for number in range(first, first + count)]
        return [{"text": text, "labels": {"intent": label_of(text)}} for text in texts]

    made.dataset("small", SCHEMA, train=rows(0, 120), validation=rows(1_000, 100))
    made.dataset("unchecked", SCHEMA, train=rows(0, 120), validation=[])
    yield made
    made.close()


def train(shop: Workshop, asked: list[str], dataset: str = "small", **options: Any) -> dict[str, Any]:
    given = {"name": "m", "dataset": dataset, "yes": True, "target_precision": parse_precisions(asked)} | options
    return shop.run(submit_training(shop.engine, shop.sender, **given))


def test_rows_under_a_certified_threshold_abstain(shop: Workshop) -> None:
    training = train(shop, ["0.9", "intent.alpha=0.99"])
    assert training["state"] == "succeeded", training
    of_all, of_alpha = training["details"]["targets"]["intent"]["precisions"]
    assert (of_all["of"], of_all["precision"]) == ("intent", 0.9)
    assert of_all["tested"] + of_alpha["tested"] == 100
    assert 0 < of_all["threshold"] < 1
    assert of_alpha["threshold"] is None  # a hundred rows have too few of it
    source = shop.folder / "texts.jsonl"
    texts = [f"text {number} {'x' * (number % 4)}" for number in range(2_000, 2_050)]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    batch = shop.run(submit_batch(shop.engine, shop.sender, source=str(source), model="m"))
    assert batch["rows"]["abstained"] >= sum(label_of(text) == "alpha" for text in texts)
    for row in read_results(shop.engine, batch["id"]):
        answer = row["predictions"]["intent"]
        best = max(answer["scores"].values())
        is_alpha = max(answer["scores"], key=answer["scores"].__getitem__) == "alpha"
        assert answer.get("abstained", False) == (is_alpha or np.float32(best) < np.float32(of_all["threshold"]))
    said = " ".join(part.text for part in gather_report(shop.engine, training["id"]).parts if isinstance(part, Note))
    shown = [value for name, value in summary_of(training).facts if name == "precision"]
    with reading(shop.engine) as connection:
        kept = registry.resolve_model(connection, "m").thresholds
    assert kept is not None
    assert kept["intent"]["alpha"] == NEVER_REACHED
    for sentence in (of_all["said"], of_alpha["said"]):
        assert sentence in said
        assert sentence in shown


@pytest.mark.parametrize(
    ("asked", "options", "words"),
    [
        (
            ["intnet=0.9"],
            {},
            r"'intnet', which is not a target or TARGET\.LABEL .* its targets are intent",
        ),
        (["intent.nothing=0.9"], {}, r"not a target or TARGET\.LABEL"),
        (["0.9"], {"dataset": "unchecked"}, "has none: prepare it with some"),
        (["95"], {}, r"is not between 0 and 1: 0\.95 is 95 %"),
        (["intent=high"], {}, "is not a NUMBER"),
        ([], {"optimize": "macro"}, "is for multi-label targets, and the dataset has none"),
    ],
)
def test_what_cannot_be_certified_at_all_is_refused_at_once(
    shop: Workshop, asked: list[str], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        train(shop, asked, **options)
    assert set(LABELS)


class TrainingMill(Workshop):
    """Polls trainings as soon as a message asks for it, and sends the message itself when none comes."""

    def step(self) -> None:
        if not self.queue.waiting:  # what recovery would send
            with reading(self.engine) as connection:
                self.queue.waiting += [
                    (TRAIN, JobMessage(job_id=one)) for one in connection.scalars(select(TrainingRow.id))
                ]
        with writing(self.engine) as connection:
            connection.execute(update(TrainingRow).values(due_at=None))
        super().step()

    def run(self, job_id: str) -> dict[str, Any]:
        while self.status(job_id)["state"] in ("queued", "uploading"):
            self.step()
        return super().run(job_id)


@pytest.mark.parametrize("validated", [True, False])
def test_a_fine_tuned_classifier_gets_a_certified_threshold_too(
    engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path, *, validated: bool
) -> None:
    made = TrainingMill(engine, mistral, redis_url, tmp_path, MemoryMistral())
    if not validated:  # no answer to any row of validation
        mistral.faults.append(refuse_texts_with("text 1"))
    texts = [f"text {number} {'x' * (number % 4)}" for number in [*range(90), *range(1_000, 1_100)]]
    rows = [{"text": text, "labels": {"intent": label_of(text)}} for text in texts]
    made.dataset("small", SCHEMA, train=rows[:90], validation=rows[90:])
    done = made.run(
        submit_training(
            engine, made.sender, name="f", dataset="small", method="factory", yes=True, target_precision={"*": 0.9}
        )
    )
    assert done["state"] == "succeeded", done
    with reading(engine) as connection:
        threshold = (registry.resolve_model(connection, "f").thresholds or {})["intent"]
    if validated:
        (asked,) = done["details"]["targets"]["intent"]["precisions"]
        assert (asked["tested"], threshold) == (100, asked["threshold"])
    assert (threshold < 1) == validated
    left_out = done["details"]["left_out"]
    assert (left_out["rows"], left_out["reason"] is None) == ((0, True) if validated else (100, False))
    made.close()
