"""Every metric of a single-label target, tallied block by block: memory holds a few numbers a row. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.core.database.analysis_codec import pack_bits
from labelmill_worker.evaluate import f1
from labelmill_worker.evaluate.answer_block import AnswerBlock, counts_by_name
from labelmill_worker.evaluate.mistakes import confident_mistakes, suspects
from labelmill_worker.evaluate.probabilities import UNMEASURED, Reliability, coverage_curve, histogram, losses_of
from labelmill_worker.evaluate.resampling import LabelCounts, intervals
from labelmill_worker.evaluate.row_counts import row_counts, unfamiliar_labels
from labelmill_worker.evaluate.scores import Scores
from labelmill_worker.evaluate.temperature import Scale
from labelmill_worker.evaluate.truth import Truth
from labelmill_worker.inference.models.temperature import are_probabilities, scaled

UNANSWERED = "(none)"  #: Stands for the answer to a row that abstained or failed: always wrong.


def unanswered_name(labels: Collection[str]) -> str:
    """`(none)`, in more parentheses where that is a label: `((none))`."""
    name = UNANSWERED
    while name in labels:
        name = f"({name})"
    return name


class _SingleLabelQuality:
    """What the scores of rows were worth: the true label's, the best one, the sum of squared errors."""

    def __init__(self, rows: int) -> None:
        self.of_truth, self.best, self.squares = np.zeros(rows), np.zeros(rows), np.zeros(rows)

    def add(self, at: NDArray[np.int64], scores: Scores, truth: NDArray[np.int32]) -> None:
        known = truth < scores.shape[1]
        of_truth = np.zeros(len(at))
        of_truth[known] = scores[np.flatnonzero(known), truth[known]]
        self.of_truth[at], self.best[at] = of_truth, scores.max(axis=1)
        # (1 - p)² for the true label and p² for each other; a label the model does not know has a score of 0
        self.squares[at] = np.square(scores).sum(axis=1) - 2 * of_truth + 1

    def summary(self, scored: NDArray[np.bool_], right: NDArray[np.bool_], labels: int) -> dict[str, Any]:
        if not scored.any():
            return dict(UNMEASURED)
        reliability = self.reliability(scored, right)
        # of two labels scikit-learn counts one
        share = 0.5 if labels < 3 else 1.0
        return {
            "log_loss": float(losses_of(self.of_truth[scored]).mean()),
            "brier": float(self.squares[scored].mean() * share),
            "ece": reliability.error(),
            "ece_by_luck": reliability.error_by_luck(),
        }

    def reliability(self, scored: NDArray[np.bool_], right: NDArray[np.bool_]) -> Reliability:
        reliability = Reliability()
        reliability.add(np.clip(self.best[scored], 0, 1), right[scored])
        return reliability


class SingleLabelTally:
    """Takes blocks of answers; `scale` is of the model version's temperature, if it has one."""

    def __init__(self, truth: Truth, scale: Scale | None = None) -> None:
        self.truth, self._scale = truth, scale
        self._real = truth.single()
        rows = len(self._real)
        self._numbers = {name: number for number, name in enumerate(truth.names)}
        self._given = np.full(rows, -1, np.int32)
        self._top = np.full(rows, -1, np.int32)
        self._scored = np.zeros(rows, bool)
        self._raw = _SingleLabelQuality(rows)
        self._calibrated = _SingleLabelQuality(rows) if scale and scale.factor != 1 else self._raw if scale else None
        self._probabilities = True

    def add(self, block: AnswerBlock) -> None:
        """Add the answers to some rows, each row once."""
        at, scores = block.at, block.scores
        if not len(at):
            return
        numbers = self._numbers
        self._given[at] = [-1 if label is None else numbers[label] for label in block.labels]
        self._top[at], self._scored[at] = scores.argmax(axis=1), True
        self._probabilities = self._probabilities and are_probabilities(scores)
        self._raw.add(at, scores, self._real[at])
        if self._scale and self._calibrated and self._calibrated is not self._raw:
            self._calibrated.add(at, scaled(scores, self._scale.factor, multi=False), self._real[at])

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which rows were labelled right."""
        right: NDArray[np.bool_] = self._given == self._real
        return right

    def metrics(self) -> dict[str, Any]:
        """The target's part of an evaluation's `metrics`."""
        names = self.truth.names
        hits, real, given = self._counts()
        present = int(((real + given) > 0).sum())
        averages = f1.averages(hits, real, given, present_only=True)
        shown = (real + given) > 0
        names_shown = [name for name, is_there in zip(names, shown, strict=True) if is_there]
        metrics = {
            **row_counts(self.correct, self._scored, self._given >= 0),
            **{name: float(value) for name, value in averages.items()},
            "per_label": f1.per_label(names_shown, hits[shown], real[shown], given[shown]),
            "confusion": self._confusion(),
            "labels_averaged": present,
            **self._quality(self._raw),
            "coverage": self._coverage(20),
            "intervals": self._intervals(),
            **unfamiliar_labels(self.truth, real),
        }
        if self._scale and self._calibrated:
            metrics["calibrated"] = {"temperature": self._scale.temperature, **self._quality(self._calibrated)}
        return metrics

    def analysis(self) -> dict[str, Any]:
        """What a report draws."""
        scored, names = self._scored, self.truth.names
        is_top = self._top == self._real
        analysis = {
            "multi": False,
            "labels": names,
            "known_labels": len(self.truth.target.labels),
            "reliability": self._raw.reliability(scored, is_top).points() if self._probabilities else [],
            "coverage": self._coverage(100),
            "histogram": histogram(self._raw.best[scored]),
            "given": counts_by_name(names, np.bincount(self._given[self._given >= 0], minlength=len(names))),
            "best_labels": counts_by_name(names, np.bincount(self._top[scored], minlength=len(names))),
            "truth": counts_by_name(names, np.bincount(self._real, minlength=len(names))),
            "rows": len(self._real),
            "has_truth": self.truth.rows,
            "correct": pack_bits(self.correct),
            "mistakes": confident_mistakes(self.truth, self._top, self._raw.best, self._raw.of_truth, scored),
            **suspects(self.truth, self._top, self._raw.best, self._raw.of_truth, scored),
        }
        if self._calibrated and self._calibrated is not self._raw and self._probabilities:
            analysis["reliability_calibrated"] = self._calibrated.reliability(scored, is_top).points()
        return analysis

    def _counts(self) -> LabelCounts:
        size = len(self.truth.names)
        real, given = np.bincount(self._real, minlength=size), self._given[self._given >= 0]
        hits = np.bincount(self._real[self.correct], minlength=size)
        return LabelCounts(hits.astype(float), real.astype(float), np.bincount(given, minlength=size).astype(float))

    def _cases(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Each distinct pair of truth and answer (-1: none), and its rows."""
        width = len(self.truth.names) + 1
        keys, counts = np.unique(self._real.astype(np.int64) * width + self._given + 1, return_counts=True)
        return keys // width, keys % width - 1, counts

    def _confusion(self) -> dict[str, dict[str, int]]:
        names: dict[str, dict[str, int]] = {}
        none = unanswered_name(self.truth.names)
        for real, given, count in zip(*(column.tolist() for column in self._cases()), strict=True):
            answer = none if given < 0 else self.truth.names[given]
            names.setdefault(self.truth.names[real], {})[answer] = count
        return {name: dict(sorted(names[name].items())) for name in sorted(names)}

    def _intervals(self) -> dict[str, Any]:
        reals, givens, rows = self._cases()
        size = len(self.truth.names)
        is_real = np.eye(size)[reals]
        is_given = np.eye(size + 1)[givens][:, :size]  # -1, no answer, is the column that is cut off
        right = reals == givens

        def statistics(drawn: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
            averages = f1.averages(
                drawn @ (is_real * right[:, None]), drawn @ is_real, drawn @ is_given, present_only=True
            )
            return {"accuracy": drawn @ right / drawn.sum(axis=1)} | averages

        return intervals(rows, self._counts(), statistics)

    def _quality(self, quality: _SingleLabelQuality) -> dict[str, Any]:
        if not self._probabilities:
            return dict(UNMEASURED)
        return quality.summary(self._scored, self._top == self._real, len(self.truth.names))

    def _coverage(self, steps: int) -> list[dict[str, Any]]:
        is_top = (self._top == self._real)[self._scored]
        return coverage_curve(self._raw.best[self._scored], is_top, len(self._real), steps)
