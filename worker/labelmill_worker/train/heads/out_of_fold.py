"""What fits that had not seen them make of the rows of train: there the wrong labels show that a fit hides. Pure but
for reading.

Up to what fits into memory every row is scored by a fit to two thirds of the others. Beyond that the fits that chose
the regularisation score the rows, which they were made without, all but their few thousand: nothing is fitted again,
and memory is a block and some 20 bytes a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill_worker.evaluate.mistakes import WrongPairs, suspects
from labelmill_worker.evaluate.truth import Truth
from labelmill_worker.inference.models.head import probabilities
from labelmill_worker.train.heads.folds import FoldFits
from labelmill_worker.train.heads.vector_rows import Matrix, TargetLabels, VectorRows

Suspects = dict[str, Any]
"""`{"suspects", "suspected", "all_suspects", "rows", "fitted_rows"}`: see `mistakes`; rows that were looked at, and how
many of them each fit had seen."""


def find_suspects(
    rows: VectorRows,
    labels: TargetLabels,
    fits: FoldFits,
    numbers: NDArray[np.int64],
    check: Callable[[], None] = lambda: None,
) -> Suspects | None:
    """The rows whose label is probably wrong, by their numbers in the split (`numbers`). None without fits."""
    if not fits.fits:
        return None
    taking_part = labels.labelled()
    truth = _truth(labels, taking_part, numbers)
    blocks = _blocks(rows, labels, fits, taking_part, check)
    found = _several(truth, labels, taking_part, blocks) if labels.target.multi else _single(truth, blocks)
    seen = len(fits.rows) - len(fits.rows) // len(fits.fits)
    return found | {"rows": len(taking_part), "fitted_rows": seen}


def _truth(labels: TargetLabels, rows: NDArray[np.int64], numbers: NDArray[np.int64]) -> Truth:
    counts = labels.starts[rows + 1] - labels.starts[rows]
    starts = np.concatenate([[0], np.cumsum(counts)])
    # rows without a label have no codes either: those of the others lie one after the other
    return Truth(labels.target, list(labels.target.labels), numbers[rows], starts, labels.codes)


def _blocks(
    rows: VectorRows,
    labels: TargetLabels,
    fits: FoldFits,
    taking_part: NDArray[np.int64],
    check: Callable[[], None],
) -> Iterator[tuple[NDArray[np.int64], Matrix]]:
    """Places among the rows that take part, ascending, and the scores that fits without them give."""
    unseen = len(fits.fits)
    fold_of = np.full(rows.count, unseen, np.int8)
    fold_of[fits.rows] = fits.folds
    for start, block in rows.blocks():
        check()
        low, high = np.searchsorted(taking_part, [start, start + len(block)])
        rows_of_block = taking_part[low:high]
        vectors, fold = block[rows_of_block - start], fold_of[rows_of_block]
        scores = np.zeros((len(rows_of_block), len(labels.target.labels)), np.float32)
        for number, fit in enumerate(fits.fits):
            for chosen, share in ((fold == number, 1.0), (fold == unseen, 1 / unseen)):
                if chosen.any():
                    scores[chosen] += share * probabilities(
                        vectors[chosen] @ fit.weights + fit.intercepts, labels.target
                    )
        yield np.arange(low, high), scores


def _single(truth: Truth, blocks: Iterator[tuple[NDArray[np.int64], Matrix]]) -> Suspects:
    real = truth.single()
    top = np.zeros(len(real), np.int32)
    best, of_truth = np.zeros(len(real)), np.zeros(len(real))
    for at, scores in blocks:
        top[at], best[at] = scores.argmax(axis=1), scores.max(axis=1)
        of_truth[at] = scores[np.arange(len(at)), real[at]]
    return suspects(truth, top, best, of_truth, np.ones(len(real), bool))


def _several(
    truth: Truth,
    labels: TargetLabels,
    taking_part: NDArray[np.int64],
    blocks: Iterator[tuple[NDArray[np.int64], Matrix]],
) -> Suspects:
    pairs, size = WrongPairs(), len(truth.names)
    with_it, without, counts = np.zeros(size), np.zeros(size), np.zeros(size, np.int64)
    for at, scores in blocks:
        present = labels.present(taking_part[at])
        pairs.add(at, scores.astype(np.float64), present)
        with_it += np.where(present, scores, 0.0).sum(axis=0)
        without += np.where(present, 0.0, scores).sum(axis=0)
        counts += present.sum(axis=0)
    usual = (
        np.divide(with_it, counts, out=np.ones(size), where=counts > 0),
        np.divide(without, len(truth.rows) - counts, out=np.zeros(size), where=counts < len(truth.rows)),
    )
    found = pairs.cases(truth, usual)
    return {name: found[name] for name in ("suspects", "suspected", "all_suspects")}
