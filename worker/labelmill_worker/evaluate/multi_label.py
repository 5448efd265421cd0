"""Every metric of a multi-label target, tallied block by block. Pure.

Scores need not sum to one, nor be independent: each label is a question of its own. `accuracy` is subset accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.core.database.analysis_codec import pack_bits
from labelmill_worker.evaluate import f1
from labelmill_worker.evaluate.answer_block import AnswerBlock, counts_by_name
from labelmill_worker.evaluate.mistakes import WrongPairs
from labelmill_worker.evaluate.probabilities import EPSILON, UNMEASURED, Reliability, coverage_curve, histogram
from labelmill_worker.evaluate.resampling import LabelCounts, intervals
from labelmill_worker.evaluate.row_counts import row_counts, unfamiliar_labels
from labelmill_worker.evaluate.scores import Scores
from labelmill_worker.evaluate.temperature import Scale
from labelmill_worker.evaluate.truth import Truth
from labelmill_worker.inference.models.temperature import are_probabilities, scaled

Bools = NDArray[np.bool_]


class _MultiLabelQuality:
    """Sums over the rows that have scores, a number a label."""

    def __init__(self, labels: int) -> None:
        self.rows = 0
        self.losses, self.squares = np.zeros(labels), np.zeros(labels)
        self.reliability = Reliability()

    def add(self, scores: Scores, present: Bools) -> None:
        self.rows += len(scores)
        # the score of what is true: of the label's presence, or of its absence
        of_truth = np.where(present, scores, 1 - scores)
        self.losses += -np.log(np.clip(of_truth, EPSILON, 1 - EPSILON)).sum(axis=0)
        self.squares += np.square(scores - present).sum(axis=0)
        self.reliability.add(np.clip(scores, 0, 1).ravel(), present.ravel())

    def summary(self) -> dict[str, Any]:
        if not self.rows:
            return dict(UNMEASURED)
        return {
            "log_loss": float((self.losses / self.rows).mean()),
            "brier": float((self.squares / self.rows).mean()),
            "ece": self.reliability.error(),
            "ece_by_luck": self.reliability.error_by_luck(),
        }


@dataclass
class _Means:
    """Mean scores of the rows with and without each label."""

    with_it: NDArray[np.float64]
    without: NDArray[np.float64]
    rows: int = 0

    def add(self, scores: Scores, present: Bools) -> None:
        self.with_it += np.where(present, scores, 0.0).sum(axis=0)
        self.without += np.where(present, 0.0, scores).sum(axis=0)
        self.rows += len(scores)


class MultiLabelTally:
    """Takes blocks of answers; `scale` is of the model version's temperature, if it has one."""

    def __init__(self, truth: Truth, scale: Scale | None = None) -> None:
        self.truth, self._scale = truth, scale
        self._present = truth.present()
        rows, size = self._present.shape
        self._labels = len(truth.target.labels)
        self._numbers = {name: number for number, name in enumerate(truth.names)}
        self._given = np.zeros((rows, size), bool)
        self._scored, self._answered = np.zeros(rows, bool), np.zeros(rows, bool)
        self._best = np.zeros(rows)
        self._raw = _MultiLabelQuality(self._labels)
        self._calibrated = (
            _MultiLabelQuality(self._labels) if scale and scale.factor != 1 else self._raw if scale else None
        )
        self._means = _Means(np.zeros(self._labels), np.zeros(self._labels))
        self._pairs = WrongPairs()
        self._probabilities = True

    def add(self, block: AnswerBlock) -> None:
        """Add the answers to some rows, each row once."""
        at, scores = block.at, block.scores
        if not len(at):
            return
        for place, labels in zip(at.tolist(), block.label_lists, strict=True):
            if labels is not None:
                self._answered[place] = True
                self._given[place, [self._numbers[label] for label in labels]] = True
        self._scored[at], self._best[at] = True, scores.max(axis=1)
        self._probabilities = self._probabilities and are_probabilities(scores)
        present = self._present[at, : self._labels]
        self._raw.add(scores, present)
        self._means.add(scores, present)
        self._pairs.add(at, scores, present)
        if self._scale and self._calibrated and self._calibrated is not self._raw:
            self._calibrated.add(scaled(scores, self._scale.factor, multi=True), present)

    @property
    def correct(self) -> Bools:
        """Which rows were given exactly their labels; a row without an answer was not."""
        right: Bools = (self._given == self._present).all(axis=1) & self._answered
        return right

    def metrics(self) -> dict[str, Any]:
        """The target's part of an evaluation's `metrics`."""
        names, rows = self.truth.names, max(1, len(self._present))
        hits, real, given = f1.counts(self._present, self._given)
        averages = f1.averages(hits, real, given, present_only=False)
        metrics = {
            **row_counts(self.correct, self._scored, self._answered),
            **{name: float(value) for name, value in averages.items()},
            "per_label": f1.per_label(names, hits, real, given),
            "confusion": self._confusion(real, given, hits),
            "labels_averaged": len(names),
            "labels_per_row": {"given": float(given.sum() / rows), "true": float(real.sum() / rows)},
            "micro_f1_every_label": f1.micro_f1_of_every_label(real, rows),
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
        names = self.truth.names
        counts = self._present[self._scored, : self._labels].sum(axis=0)
        usual = (
            np.divide(self._means.with_it, counts, out=np.ones(self._labels), where=counts > 0),
            np.divide(
                self._means.without,
                self._means.rows - counts,
                out=np.zeros(self._labels),
                where=self._means.rows > counts,
            ),
        )
        analysis = {
            "multi": True,
            "labels": names,
            "known_labels": self._labels,
            "reliability": self._raw.reliability.points() if self._probabilities else [],
            "coverage": self._coverage(100),
            "histogram": histogram(self._best[self._scored]),
            "given": counts_by_name(names, self._given.sum(axis=0)),
            "truth": counts_by_name(names, self._present.sum(axis=0)),
            "rows": len(self._present),
            "has_truth": self.truth.rows,
            "correct": pack_bits(self.correct),
            **self._pairs.cases(self.truth, usual),
        }
        if self._calibrated and self._calibrated is not self._raw and self._probabilities:
            analysis["reliability_calibrated"] = self._calibrated.reliability.points()
        return analysis

    def _confusion(self, real: Any, given: Any, hits: Any) -> dict[str, dict[str, int]]:
        rows = len(self._present)
        return {
            name: {
                "true_negative": int(rows - real[at] - given[at] + hits[at]),
                "false_positive": int(given[at] - hits[at]),
                "false_negative": int(real[at] - hits[at]),
                "true_positive": int(hits[at]),
            }
            for name, at in sorted(self._numbers.items())
        }

    def _intervals(self) -> dict[str, Any]:
        packed = np.packbits(np.concatenate([self._present, self._given, self._answered[:, None]], axis=1), axis=1)
        packed_rows = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
        _, first, rows = np.unique(packed_rows, return_index=True, return_counts=True)
        present, given = self._present[first].astype(float), self._given[first].astype(float)
        hits, right = present * given, self.correct[first]

        def statistics(drawn: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
            averages = f1.averages(drawn @ hits, drawn @ present, drawn @ given, present_only=False)
            return {"accuracy": drawn @ right / drawn.sum(axis=1)} | averages

        return intervals(rows, LabelCounts(*f1.counts(self._present, self._given)), statistics)

    def _quality(self, quality: _MultiLabelQuality) -> dict[str, Any]:
        return quality.summary() if self._probabilities else dict(UNMEASURED)

    def _coverage(self, steps: int) -> list[dict[str, Any]]:
        scored = self._scored
        return coverage_curve(self._best[scored], self.correct[scored], len(scored), steps)
