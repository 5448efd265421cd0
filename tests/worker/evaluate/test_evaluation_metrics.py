"""Every metric against scikit-learn's, on the scores as they are exported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
)

from labelmill.contracts.documents.parts import TargetMetrics
from labelmill.contracts.label_schema import Target
from labelmill_worker.evaluate.answer_block import AnswerBlock
from labelmill_worker.evaluate.measure import _unseen
from labelmill_worker.evaluate.multi_label import MultiLabelTally
from labelmill_worker.evaluate.probabilities import BINS, coverage_curve
from labelmill_worker.evaluate.scores import as_exported
from labelmill_worker.evaluate.single_label import SingleLabelTally
from labelmill_worker.evaluate.temperature import Scale, fit_multi, fit_single
from labelmill_worker.evaluate.truth import Truth
from labelmill_worker.inference.models.temperature import scaled

CLOSE = {"rel": 0, "abs": 1e-9}


def made_truth(target: Target, rows: list[list[str]]) -> Truth:
    numbers = {label: number for number, label in enumerate(target.labels)}
    codes = [numbers.setdefault(label, len(numbers)) for row in rows for label in row]
    starts = np.cumsum([0, *map(len, rows)])
    return Truth(target, list(numbers), np.arange(len(rows)), starts.astype(np.int64), np.array(codes, np.int32))


class Answered:
    """Random answers to a single-label target, as the store keeps them and as the world sees them."""

    def __init__(self, seed: int, rows: int, labels: int, *, unknown: bool, sure: bool, abstain_under: float) -> None:
        rng = np.random.default_rng(seed)
        self.labels = [f"label {number:03}" for number in range(labels)]
        rng.shuffle(self.labels)
        target = Target("intent", tuple(self.labels))
        margins = rng.normal(size=(rows, labels)) * 3
        stored = np.exp(margins - margins.max(1, keepdims=True))
        stored /= stored.sum(1, keepdims=True)
        if sure:
            stored = np.eye(labels)[margins.argmax(1)]
        stored = stored.astype("<f4")
        real = [self.labels[at] if rng.random() < 0.7 else str(rng.choice(self.labels)) for at in stored.argmax(1)]
        if unknown:
            for at in range(0, rows, 5):
                real[at] = "never heard of"
        self.real = real
        self.failed = rng.random(rows) < 0.1
        self.truth = made_truth(target, [[label] for label in real])
        # as a reader of the exported rows would see them
        self.seen = np.array([json.loads("[" + ",".join(map(str, row)) + "]") for row in stored])
        best = stored.max(1)
        self.given: list[str | None] = [
            None if failed or best[at] < abstain_under else self.labels[stored[at].argmax()]
            for at, failed in enumerate(self.failed)
        ]
        self.stored = stored

    def blocks(self) -> Iterator[AnswerBlock]:
        there = np.flatnonzero(~self.failed)
        for at in np.array_split(there, 3):
            raw = [self.stored[one].tobytes() for one in at]
            yield AnswerBlock(at, [self.given[one] for one in at], [None] * len(at), as_exported(raw, len(self.labels)))

    def tally(self, temperature: float | None = None) -> SingleLabelTally:
        tally = SingleLabelTally(self.truth, temperature and Scale(temperature, temperature))
        for block in self.blocks():
            tally.add(block)
        return tally


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(20, 300),
    labels=st.sampled_from([2, 3, 17, 77]),
    unknown=st.booleans(),
    sure=st.booleans(),
    abstain_under=st.sampled_from([0.0, 0.5]),
)
@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")
def test_a_single_label_target_is_measured_as_scikit_learn_measures_it(
    seed: int, rows: int, labels: int, *, unknown: bool, sure: bool, abstain_under: float
) -> None:
    made = Answered(seed, rows, labels, unknown=unknown, sure=sure, abstain_under=abstain_under)
    found = made.tally().metrics()
    answers = [label if label is not None else "(none)" for label in made.given]
    shown = sorted((set(made.real) | set(answers)) - {"(none)"})
    assert found["accuracy"] == pytest.approx(accuracy_score(made.real, answers), **CLOSE)
    for average in ("macro", "weighted", "micro"):
        expected = f1_score(made.real, answers, labels=shown, average=average, zero_division=0)
        assert found[f"{average}_f1"] == pytest.approx(expected, **CLOSE)
    columns = precision_recall_fscore_support(made.real, answers, labels=shown, zero_division=0)
    assert list(found["per_label"]) == shown
    for label, *numbers in zip(shown, *columns, strict=True):
        assert list(found["per_label"][label].values()) == pytest.approx(numbers, **CLOSE)
    everything = sorted(set(made.real) | set(answers))
    matrix = confusion_matrix(made.real, answers, labels=everything)
    expected_cells = {
        (everything[i], everything[j]): int(matrix[i, j]) for i, j in zip(*np.nonzero(matrix), strict=True)
    }
    assert {(a, b): n for a, row in found["confusion"].items() for b, n in row.items()} == expected_cells
    assert (found["failed"], found["abstained"]) == (made.failed.sum(), answers.count("(none)") - made.failed.sum())
    assert found["unknown_labels"] == ({"never heard of": made.real.count("never heard of")} if unknown else {})

    scored = ~made.failed
    classes = sorted({*made.labels, *made.real})
    table = np.zeros((rows, len(classes)))
    for column, label in enumerate(made.labels):
        table[:, classes.index(label)] = made.seen[:, column]
    real = np.array(made.real)[scored]
    assert found["log_loss"] == pytest.approx(log_loss(real, table[scored], labels=classes), **CLOSE)
    assert found["brier"] == pytest.approx(brier_score_loss(real, table[scored], labels=classes), **CLOSE)
    confidence = made.seen[scored].max(1)
    right = np.array(made.labels)[made.seen[scored].argmax(1)] == real
    assert found["ece"] == pytest.approx(slow_ece(confidence, right), **CLOSE)
    points = made.tally().analysis()["reliability"]
    assert_like_calibration_curve(points, confidence, right)
    for point in found["coverage"]:
        kept = confidence >= point["threshold"]
        assert point["coverage"] == pytest.approx(kept.sum() / rows, **CLOSE)
        assert point["accuracy"] == (pytest.approx(right[kept].mean(), **CLOSE) if kept.any() else None)


def assert_like_calibration_curve(points: list[dict[str, Any]], confidence: Any, right: Any) -> None:
    accuracies, confidences = calibration_curve(right, confidence, n_bins=BINS)
    assert [point["accuracy"] for point in points] == pytest.approx(accuracies, **CLOSE)
    assert [point["confidence"] for point in points] == pytest.approx(confidences, **CLOSE)


def slow_ece(confidence: Any, right: Any) -> float:
    error = 0.0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        inside = (confidence > low) & (confidence <= high) if number else confidence <= high
        if inside.any():
            error += abs(confidence[inside].mean() - right[inside].mean()) * inside.sum() / len(confidence)
    return error


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(20, 200), labels=st.sampled_from([2, 5, 28]), sure=st.booleans())
def test_a_multi_label_target_is_measured_as_scikit_learn_measures_it(
    seed: int, rows: int, labels: int, *, sure: bool
) -> None:
    rng = np.random.default_rng(seed)
    names = [f"tag {number:02}" for number in range(labels)]
    stored = rng.beta(0.4, 1.2, size=(rows, labels)).astype("<f4")
    if sure:
        stored = stored.round()
    present = rng.random((rows, labels)) < stored
    failed = rng.random(rows) < 0.1
    truth = made_truth(
        Target("tags", tuple(names), multi=True), [[names[at] for at in np.flatnonzero(row)] for row in present]
    )
    holds = (stored >= 0.5) & ~failed[:, None]
    tally = MultiLabelTally(truth)
    there = np.flatnonzero(~failed)
    for at in np.array_split(there, 2):
        lists: list[list[str] | None] = [[names[label] for label in np.flatnonzero(holds[one])] for one in at]
        raw = [stored[one].tobytes() for one in at]
        tally.add(AnswerBlock(at, [None] * len(at), lists, as_exported(raw, labels)))
    found = tally.metrics()

    right = (holds == present).all(1) & ~failed
    assert found["accuracy"] == pytest.approx(right.mean(), **CLOSE)
    assert found["accuracy_answered"] == pytest.approx(accuracy_score(present[there], holds[there]), **CLOSE)
    for average in ("macro", "weighted", "micro"):
        expected = f1_score(present, holds, average=average, zero_division=0)
        assert found[f"{average}_f1"] == pytest.approx(expected, **CLOSE)
    columns = precision_recall_fscore_support(present, holds, zero_division=0)
    for label, *numbers in zip(names, *columns, strict=True):
        assert list(found["per_label"][label].values()) == pytest.approx(numbers, **CLOSE)
    for label, matrix in zip(names, multilabel_confusion_matrix(present, holds), strict=True):
        assert list(found["confusion"][label].values()) == matrix.ravel().tolist()
    seen = np.array([[float(str(score)) for score in row] for row in stored])[there]
    real = present[there]
    losses = [log_loss(real[:, at], seen[:, at], labels=[False, True]) for at in range(labels)]
    assert found["log_loss"] == pytest.approx(np.mean(losses), **CLOSE)
    briers = [brier_score_loss(real[:, at], seen[:, at], pos_label=True) for at in range(labels)]
    assert found["brier"] == pytest.approx(np.mean(briers), **CLOSE)
    assert found["ece"] == pytest.approx(slow_ece(seen.ravel(), real.ravel()), **CLOSE)
    low, high = found["intervals"]["accuracy"]
    assert low <= found["accuracy"] <= high


def test_exported_scores_are_the_decimals_that_results_writes() -> None:
    stored = np.array([[0.1, 0.9], [1e-20, 1.0]], "<f4")
    exported = as_exported([row.tobytes() for row in stored], 2)
    assert exported.tolist() == [[0.1, 0.9], [1e-20, 1.0]]
    assert exported[0, 0] != float(stored[0, 0])


def test_intervals_are_those_of_resampled_rows() -> None:
    made = Answered(3, 400, 5, unknown=False, sure=False, abstain_under=0.0)
    found = made.tally().metrics()["intervals"]
    assert made.tally().metrics()["intervals"] == found
    rng = np.random.default_rng(1)
    real, answers = np.array(made.real), np.array([label or "(none)" for label in made.given])
    labels = sorted(set(made.labels))
    accuracies, macros = [], []
    for _ in range(600):
        drawn = rng.integers(0, 400, 400)
        accuracies.append(accuracy_score(real[drawn], answers[drawn]))
        macros.append(f1_score(real[drawn], answers[drawn], labels=labels, average="macro", zero_division=0))
    for name, values in (("accuracy", accuracies), ("macro_f1", macros)):
        assert found[name] == pytest.approx(np.quantile(values, [0.025, 0.975]).tolist(), abs=0.02)


def test_a_temperature_mends_a_model_that_is_too_sure() -> None:
    rng = np.random.default_rng(0)
    honest = rng.dirichlet(np.ones(6), size=4000)
    real = np.array([rng.choice(6, p=row) for row in honest], np.int32)
    too_sure = honest**3 / (honest**3).sum(1, keepdims=True)
    fitted = fit_single(too_sure, real)
    assert fitted is not None
    assert fitted["temperature"] == pytest.approx(3, rel=0.1)
    assert fitted["log_loss_after"] < fitted["log_loss_before"]
    rescaled = scaled(too_sure, fitted["temperature"], multi=False)
    assert fitted["log_loss_after"] == pytest.approx(log_loss(real, rescaled), abs=1e-9)
    assert (rescaled.argmax(1) == too_sure.argmax(1)).all()

    odds = rng.random((4000, 3))
    present = rng.random((4000, 3)) < odds
    fitted = fit_multi(1 / (1 + ((1 - odds) / odds) ** 2), present)
    assert fitted is not None
    assert fitted["temperature"] == pytest.approx(2, rel=0.1)


def test_sure_answers_can_be_calibrated() -> None:
    scores = np.eye(4)[np.arange(400) % 4]
    real = (np.arange(400) % 4).astype(np.int32)
    real[::10] = 0
    fitted = fit_single(scores, real)
    assert fitted is not None
    assert np.isfinite(fitted["log_loss_after"])
    assert fitted["log_loss_after"] < fitted["log_loss_before"]


def test_a_calibrated_version_is_measured_both_ways() -> None:
    found = Answered(5, 200, 4, unknown=False, sure=False, abstain_under=0.0).tally(2.0).metrics()
    assert found["calibrated"]["temperature"] == 2.0
    assert found["calibrated"]["log_loss"] != found["log_loss"]


def test_rows_that_all_failed_are_wrong_and_have_no_scores() -> None:
    truth = made_truth(Target("intent", ("a", "b")), [["a"], ["b"], ["b"]])
    found = SingleLabelTally(truth).metrics()
    assert (found["accuracy"], found["macro_f1"], found["failed"], found["answered"]) == (0.0, 0.0, 3, 0)
    assert found["log_loss"] is None
    assert found["coverage"][0] == {"threshold": 0.0, "coverage": 0.0, "accuracy": None}


def test_scores_that_are_no_probabilities_have_no_log_loss() -> None:
    truth = made_truth(Target("intent", ("a", "b")), [["a"], ["b"]])
    tally = SingleLabelTally(truth)
    tally.add(AnswerBlock(np.arange(2), ["a", "a"], [None, None], np.array([[3.5, -1.0], [2.0, 1.0]])))
    found = tally.metrics()
    assert (found["accuracy"], found["log_loss"], found["ece"]) == (0.5, None, None)


def test_coverage_falls_and_keeps_the_surest() -> None:
    curve = coverage_curve(np.array([0.2, 0.9, 0.9, 1.0]), np.array([False, True, False, True]), 5, steps=10)
    assert curve[0] == {"threshold": 0.0, "coverage": 0.8, "accuracy": 0.5}
    assert curve[9] == {"threshold": 0.9, "coverage": 0.6, "accuracy": pytest.approx(2 / 3)}
    assert curve[10] == {"threshold": 1.0, "coverage": 0.2, "accuracy": 1.0}


def test_every_figure_that_is_written_is_declared_for_users() -> None:
    made = Answered(1, 60, 4, unknown=True, sure=False, abstain_under=0.5)
    single = made.tally(1.5)
    multi = MultiLabelTally(
        made_truth(Target("tags", ("a", "b"), multi=True), [["a"], ["a", "b"], []]), Scale(0.7, 1.5)
    )
    answer = [np.array([0.9, 0.2], "<f4").tobytes()]
    multi.add(AnswerBlock(np.array([0]), [None], [["a"]], as_exported(answer, 2)))
    seen = _unseen(single.correct, np.arange(len(single.correct)) % 2 == 0, single.truth)
    for metrics in (single.metrics() | seen, multi.metrics()):
        declared = TypeAdapter(TargetMetrics).validate_python(metrics, strict=True)  # without what is not declared
        assert declared == metrics
