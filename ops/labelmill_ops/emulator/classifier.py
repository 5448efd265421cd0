"""The models behind the emulator: TF-IDF and logistic regression, one head per target, really trained."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from labelmill_ops.emulator.training_data import TrainedTarget, TrainingData
from labelmill_ops.emulator.weighting import TfidfWeights

# Checkpoints are true fits along the regularisation path, weakest fit first: each starts from the one before, so the
# path costs little more than its end, and the losses are those of a model that could be served.
SINGLE_LABEL_PATH = (0.1, 0.3, 1.0, 3.0, 10.0)
MULTI_LABEL_PATH = (0.1, 1.0, 10.0)
_MIN_RATE = 1e-3  # the rate taken for a label that every row has, or none
_PROBABILITY_FLOOR = 1e-12
_TOLERANCE = 1e-4  # of the largest gradient; scikit-learn's default

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Losses:
    """Mean log-loss over all targets at one checkpoint; `valid` is None without a validation file."""

    train: float
    valid: float | None


@dataclass(frozen=True)
class TargetHead:
    """One target's linear model: float32 weights (n-grams, labels) and intercepts (labels)."""

    target: TrainedTarget
    weights: npt.NDArray[np.float32]
    intercepts: npt.NDArray[np.float32]

    def probabilities(self, features: Any) -> Matrix:
        """Return (n, labels): rows sum to 1 for a single-label target, are independent for a multi-label one."""
        margins: Matrix = (features @ self.weights + self.intercepts).astype(np.float64)
        if self.target.multi_label:
            return 1.0 / (1.0 + np.exp(-np.clip(margins, -500, 500)))
        shifted = np.exp(margins - margins.max(axis=1, keepdims=True))
        result: Matrix = shifted / shifted.sum(axis=1, keepdims=True)
        return result


@dataclass(frozen=True)
class Classifier:
    """A trained model. Safe to use from several threads."""

    features: TfidfWeights
    heads: tuple[TargetHead, ...]

    @property
    def targets(self) -> tuple[TrainedTarget, ...]:
        """The targets it answers, in the order of its heads."""
        return tuple(head.target for head in self.heads)

    def classify(self, texts: Sequence[str]) -> list[dict[str, dict[str, dict[str, float]]]]:
        """Score every label of every target, in the form of Mistral's `results`."""
        weighed = self.features.weigh(texts)
        results: list[dict[str, dict[str, dict[str, float]]]] = [{} for _ in texts]
        for head in self.heads:
            labels = head.target.labels
            for result, row in zip(results, head.probabilities(weighed).tolist(), strict=True):
                result[head.target.name] = {"scores": dict(zip(labels, row, strict=True))}
        return results

    def save(self, folder: Path) -> None:
        """Write `model.json` and `weights.npz` into folder."""
        arrays: dict[str, Any] = {"columns": self.features.columns, "idf": self.features.idf}
        for number, head in enumerate(self.heads):
            arrays[f"weights_{number}"], arrays[f"intercepts_{number}"] = head.weights, head.intercepts
        np.savez(folder / "weights.npz", **arrays)
        targets = [target.as_json() for target in self.targets]
        (folder / "model.json").write_text(json.dumps({"targets": targets}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Classifier":
        """Read what `save` wrote."""
        saved = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        with np.load(folder / "weights.npz", allow_pickle=False) as arrays:
            features = TfidfWeights(columns=arrays["columns"], idf=arrays["idf"])
            heads = tuple(
                TargetHead(TrainedTarget.from_json(target), arrays[f"weights_{number}"], arrays[f"intercepts_{number}"])
                for number, target in enumerate(saved["targets"])
            )
        return cls(features, heads)


def train(
    data: TrainingData,
    *,
    checkpoints: int | None = None,
    on_checkpoint: Callable[[int, int, Losses], None] | None = None,
) -> Classifier:
    """Train one head per target.

    `on_checkpoint(number, of, losses)` is called after each checkpoint; what it raises ends the training. `checkpoints`
    caps how many there are.
    """
    path: tuple[float, ...] = (
        MULTI_LABEL_PATH if any(target.multi_label for target in data.targets) else SINGLE_LABEL_PATH
    )
    path = path[-checkpoints:] if checkpoints else path
    features = TfidfWeights.fitted_to(data.train.texts)
    train_features, valid_features = features.weigh(data.train.texts), features.weigh(data.validation.texts)
    fits = [_TargetFit(target, data.train.labels[target.name]) for target in data.targets]
    heads: tuple[TargetHead, ...] = ()
    for number, inverse_strength in enumerate(path, start=1):
        heads = tuple(fit.refit(train_features, inverse_strength) for fit in fits)
        train_loss = _mean_loss(heads, train_features, data.train.labels)
        valid_loss = _mean_loss(heads, valid_features, data.validation.labels) if data.validation.texts else None
        if on_checkpoint is not None:
            on_checkpoint(number, len(path), Losses(train_loss, valid_loss))
    return Classifier(features, heads)


class _TargetFit:
    """The regressions of one target, kept between checkpoints for their warm start."""

    def __init__(self, target: TrainedTarget, labels: Sequence[frozenset[int]]) -> None:
        self._target = target
        self._present = _indicators(labels, len(target.labels))
        count = len(target.labels) if target.multi_label else 1
        self._regressions = [LogisticRegression(warm_start=True, max_iter=2000) for _ in range(count)]

    def refit(self, features: Any, inverse_strength: float) -> TargetHead:
        for regression in self._regressions:
            regression.C = inverse_strength
            # Weak fits only report their loss, strong ones are served.
            regression.tol = _TOLERANCE if inverse_strength > 1 else 10 * _TOLERANCE
        columns = len(self._target.labels)
        weights = np.zeros((features.shape[1], columns), dtype=np.float32)
        intercepts = np.zeros(columns, dtype=np.float32)
        if self._target.multi_label:
            for column, regression in enumerate(self._regressions):
                self._fit_label(features, column, regression, weights, intercepts)
            return TargetHead(self._target, weights, intercepts)
        (regression,) = self._regressions
        regression.fit(features, self._present.argmax(axis=1))
        # A label named in `classifier_targets` may have no rows: it keeps weight 0 and the lowest intercept.
        trained = regression.classes_
        intercepts[:] = np.log(_MIN_RATE)
        if len(trained) > len(regression.coef_):  # two classes: one row of weights, for the second of them
            weights[:, trained[1]], intercepts[trained[0]] = regression.coef_[0], 0.0
            intercepts[trained[1]] = regression.intercept_[0]
        else:
            weights[:, trained], intercepts[trained] = regression.coef_.T, regression.intercept_
        return TargetHead(self._target, weights, intercepts)

    def _fit_label(
        self, features: Any, column: int, regression: Any, weights: npt.NDArray[Any], intercepts: npt.NDArray[Any]
    ) -> None:
        present = self._present[:, column]
        rate = float(present.mean())
        if rate in (0.0, 1.0):
            rate = min(max(rate, _MIN_RATE), 1 - _MIN_RATE)
            intercepts[column] = np.log(rate / (1 - rate))
            return
        regression.fit(features, present)
        weights[:, column], intercepts[column] = regression.coef_[0], regression.intercept_[0]


def _indicators(labels: Sequence[frozenset[int]], columns: int) -> npt.NDArray[np.int8]:
    present = np.zeros((len(labels), columns), dtype=np.int8)
    for row, indices in enumerate(labels):
        present[row, list(indices)] = 1
    return present


def _mean_loss(heads: Sequence[TargetHead], features: Any, labels: dict[str, list[frozenset[int]]]) -> float:
    return float(np.mean([_loss(head, features, labels[head.target.name]) for head in heads]))


def _loss(head: TargetHead, features: Any, labels: Sequence[frozenset[int]]) -> float:
    present = _indicators(labels, len(head.target.labels))
    probabilities = np.clip(head.probabilities(features), _PROBABILITY_FLOOR, 1 - _PROBABILITY_FLOOR)
    losses = -present * np.log(probabilities)
    if head.target.multi_label:
        losses -= (1 - present) * np.log(1 - probabilities)
        return float(losses.mean())
    return float(losses.sum(axis=1).mean())
