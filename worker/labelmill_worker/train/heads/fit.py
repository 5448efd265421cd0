"""From labelled vectors to a head: regularisation by cross-validation on train, thresholds by validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_worker.evaluate import f1
from labelmill_worker.evaluate.probabilities import histogram
from labelmill_worker.inference.models.head import Head, probabilities
from labelmill_worker.train.heads.decisions import Wanted, choose_thresholds
from labelmill_worker.train.heads.folds import FOLDS, FoldFits, deal_folds
from labelmill_worker.train.heads.minibatch import fit_minibatch
from labelmill_worker.train.heads.out_of_fold import Suspects, find_suspects
from labelmill_worker.train.heads.solvers import ROUGHLY_FLAT, Linear, solve
from labelmill_worker.train.heads.vector_rows import Matrix, TargetLabels, VectorRows

IN_MEMORY_ROWS = 30_000  #: More, or too many labels for so many rows, are fitted in mini-batches.
IN_MEMORY_CELLS = 10_000_000  #: Rows times labels.
#: scikit-learn's C, tried in turn until the loss falls no more.
STRENGTHS = tuple(0.5 * 4.0**step for step in range(12))
WEAKER = (0.125, 0.03, 0.008)  #: Tried in turn where the first of them is better than the second: vectors may be long.
_WORTH_IT = 0.995  #: A weaker regularisation that leaves more than this share of the loss is the last that is tried.
_CV_ROWS, _CV_CELLS = 6_000, 600_000
_CHECK_ROWS = 20_000  #: Of validation at most; thresholds need no more.
_SEED = 42
_NOTHING_SPECIAL = Wanted()


@dataclass(frozen=True)
class Fitted:
    """A head, the thresholds of its targets that have some, what was found for each target, and the rows of train whose
    labels are probably wrong, by target."""

    head: Head
    thresholds: dict[str, float | dict[str, float]]
    report: dict[str, Any]
    suspects: dict[str, Suspects]


def fit_head(
    train: VectorRows,
    validation: VectorRows | None,
    schema: LabelSchema,
    *,
    wanted: Wanted = _NOTHING_SPECIAL,
    numbers: NDArray[np.int64] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Fitted:
    """Fit a head for every target. Raises InvalidInput when a target has nothing to learn from.

    `wanted`: of thresholds. `numbers`: those that the rows of `train` have in their split, where some have no vector.
    `check` is called between any two steps: what it raises ends the work.
    """
    # beside other work, BLAS threads that wait for each other take more time than they save
    with threadpool_limits(1, user_api="blas"):
        known = np.arange(train.count) if numbers is None else numbers
        return _fit_targets(train, validation, schema, wanted, known, check)


def _fit_targets(
    train: VectorRows,
    validation: VectorRows | None,
    schema: LabelSchema,
    wanted: Wanted,
    numbers: NDArray[np.int64],
    check: Callable[[], None],
) -> Fitted:
    fits: list[Linear] = []
    thresholds: dict[str, float | dict[str, float]] = {}
    report: dict[str, Any] = {}
    doubtful: dict[str, Suspects] = {}
    for number, target in enumerate(schema.targets):
        labels = train.labels[number]
        rows = labels.labelled()
        if not len(labels.codes):
            raise InvalidInput(f"no row of train has a label for the target {target.name!r}")
        chosen = choose_strength(train, labels, check)
        fitted = _fit(train, labels, rows, chosen.strength, chosen.fits.mean(), check)
        fits.append(fitted)
        checked = _check(fitted, validation, number, target) if validation and validation.count else None
        scores, truth = checked or (chosen.scores, chosen.truth)
        report[target.name] = {"rows": len(rows), "C": chosen.strength, "cross_validation": chosen.losses}
        decided = choose_thresholds(scores, truth, target, wanted, unseen=checked is not None)
        if decided.thresholds is not None:
            thresholds[target.name] = decided.thresholds
        if decided.precisions:
            report[target.name]["precisions"] = decided.precisions
        if checked:
            report[target.name]["validation"] = _measure(scores, truth, target, decided.thresholds)
        fold_fits = chosen.fits
        if _fits_into_memory(rows, target):
            fold_fits = fold_fits.extended(train, labels, chosen.strength, check)
        if found := find_suspects(train, labels, fold_fits, numbers, check):
            doubtful[target.name] = found
            report[target.name]["suspects"] = {name: found[name] for name in ("suspected", "rows", "fitted_rows")}
    head = Head(schema, [fit.weights for fit in fits], [fit.intercepts for fit in fits])
    return Fitted(head, thresholds, report, doubtful)


def _fits_into_memory(taking_part: NDArray[np.int64], target: Target) -> bool:
    return len(taking_part) <= IN_MEMORY_ROWS and len(taking_part) * len(target.labels) <= IN_MEMORY_CELLS


def _fit(
    rows: VectorRows,
    labels: TargetLabels,
    taking_part: NDArray[np.int64],
    strength: float,
    start: Linear | None,
    check: Callable[[], None],
) -> Linear:
    check()
    if not _fits_into_memory(taking_part, labels.target):
        return fit_minibatch(rows, labels, strength, check)
    return solve(rows.take(taking_part), labels, taking_part, strength, start)


@dataclass(frozen=True)
class ChosenStrength:
    """The C with the least loss on rows that its fit had not seen, the scores of those rows, and the fits."""

    strength: float
    losses: list[dict[str, float]]
    scores: Matrix
    truth: NDArray[np.bool_]
    fits: FoldFits = field(default_factory=FoldFits)


def choose_strength(rows: VectorRows, labels: TargetLabels, check: Callable[[], None] = lambda: None) -> ChosenStrength:
    """Cross-validate on train, on a part of it where it is large: the best C depends little on the number of rows."""
    target = labels.target
    part = _sample(labels, min(_CV_ROWS, max(_CV_CELLS // len(target.labels), 4 * len(target.labels), 500)))
    shape = (0, len(target.labels))
    nothing = ChosenStrength(STRENGTHS[2], [], np.empty(shape, np.float32), np.empty(shape, bool))
    if len(part) < 2 * FOLDS:
        return nothing
    vectors, truth = rows.take(part), labels.present(part)
    folds = deal_folds(labels, part)
    best = nothing
    losses: list[dict[str, float]] = []
    latest: list[Linear] = []

    def is_better(strength: float) -> bool:
        nonlocal best, latest
        scores = np.empty(truth.shape, np.float32)
        fits = []
        for fold in range(FOLDS):
            check()
            validated, fitted_on = folds == fold, folds != fold
            # each begins where the same rows with another C ended: the whole path costs little more than one fit
            start = latest[fold] if latest else None
            fitted = solve(vectors[fitted_on], labels, part[fitted_on], strength, start, ROUGHLY_FLAT)
            scores[validated] = probabilities(vectors[validated] @ fitted.weights + fitted.intercepts, target)
            fits.append(fitted)
        latest = fits
        loss = round(log_loss(scores, truth, target), 6)
        min_loss = min((tried["log_loss"] for tried in losses), default=np.inf)
        losses.append({"C": strength, "log_loss": loss})
        if loss < min_loss:
            best = ChosenStrength(strength, losses, scores, truth, FoldFits(part, folds, fits))
        return loss < min_loss * _WORTH_IT

    for strength in STRENGTHS:
        if not is_better(strength):
            break
    if best.strength == STRENGTHS[0]:
        latest = best.fits.fits
        for strength in WEAKER:
            if not is_better(strength):
                break
    losses.sort(key=lambda one: one["C"])
    return best


def _sample(labels: TargetLabels, count: int) -> NDArray[np.int64]:
    """Rows of every label, in ascending order: the common ones in proportion, the rare ones at least a few times."""
    rows = labels.labelled()
    if len(rows) <= count:
        return rows
    rng = np.random.default_rng(_SEED)
    chosen = np.zeros(len(labels.starts) - 1, bool)
    chosen[rng.choice(rows, count, replace=False)] = True
    owners = np.repeat(np.arange(len(labels.starts) - 1), np.diff(labels.starts))
    few = max(2, count // (4 * len(labels.target.labels)))
    for label in np.flatnonzero(np.bincount(labels.codes[chosen[owners]], minlength=len(labels.target.labels)) < few):
        chosen[owners[labels.codes == label][:few]] = True
    found: NDArray[np.int64] = np.flatnonzero(chosen)
    return found


def log_loss(scores: Matrix, truth: NDArray[np.bool_], target: Target) -> float:
    """Mean log-loss of a row, over all labels of a multi-label target."""
    clipped = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
    if target.multi:
        return float(-np.where(truth, np.log(clipped), np.log1p(-clipped)).mean())
    return float(-np.log(clipped[truth]).mean())


def _check(
    fitted: Linear, validation: VectorRows, number: int, target: Target
) -> tuple[Matrix, NDArray[np.bool_]] | None:
    labels = validation.labels[number]
    rows = labels.labelled()
    rows = rows[:: max(1, -(-len(rows) // _CHECK_ROWS))]
    if not len(rows):
        return None
    return probabilities(validation.take(rows) @ fitted.weights + fitted.intercepts, target), labels.present(rows)


def _measure(
    scores: Matrix, truth: NDArray[np.bool_], target: Target, thresholds: float | dict[str, float] | None
) -> dict[str, Any]:
    found: dict[str, Any] = {"rows": len(scores), "log_loss": round(log_loss(scores, truth, target), 6)}
    found["best_scores"] = histogram(scores.max(axis=1).astype(np.float64))
    if target.multi:
        by_label = thresholds if isinstance(thresholds, dict) else {}
        given = scores >= np.array([by_label.get(label, 0.5) for label in target.labels], np.float32)
        averages = f1.averages(*f1.counts(truth, given), present_only=False)
        found["given"] = _by_label(given.sum(axis=0), target)
        found["labels_per_row"] = {"given": round(float(given.sum(axis=1).mean()), 6)}
        found["labels_per_row"]["true"] = round(float(truth.sum(axis=1).mean()), 6)
        found["micro_f1_every_label"] = round(
            f1.micro_f1_of_every_label(truth.sum(axis=0).astype(float), len(truth)), 6
        )
        return found | {name: round(float(averages[name]), 6) for name in ("micro_f1", "macro_f1")}
    found["given"] = _by_label(np.bincount(scores.argmax(axis=1), minlength=len(target.labels)), target)
    right = truth[np.arange(len(scores)), scores.argmax(axis=1)]
    return found | {"accuracy": round(float(right.mean()), 6)}


def _by_label(counts: NDArray[np.int64], target: Target) -> dict[str, int]:
    """What the head answered to the rows it is checked on: a report compares later batches with it and with the best
    scores."""
    return {label: int(count) for label, count in zip(target.labels, counts, strict=True) if count}
