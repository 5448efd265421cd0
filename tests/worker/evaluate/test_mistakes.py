"""Which rows a person should look at, and how many there are."""

from __future__ import annotations

import numpy as np

from labelmill.contracts.label_schema import Target
from labelmill_worker.evaluate.mistakes import SHOWN, WrongPairs
from labelmill_worker.evaluate.truth import Truth

LABELS = ("a", "b", "c")


def test_rows_of_a_multi_label_target_with_several_doubtful_labels_count_once() -> None:
    rows = 5_000
    present = np.zeros((rows, 3), bool)
    present[::2, 0] = True
    scores = np.where(present, 0.9, 0.05)
    flipped = np.arange(0, rows, 2)[:1_500]
    scores[flipped] = [0.01, 0.99, 0.99]  # three pairs of each of these rows are doubtful
    starts = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    truth = Truth(
        Target("tags", LABELS, multi=True), list(LABELS), np.arange(rows) * 10, starts, np.nonzero(present)[1]
    )
    pairs = WrongPairs()
    for at in np.array_split(np.arange(rows), 4):
        pairs.add(at, scores[at], present[at])
    found = pairs.cases(truth, (np.full(3, 0.05), np.full(3, 0.9)))
    assert found["suspected"] == 1_500
    assert len(found["suspects"]) == len(found["mistakes"]) == SHOWN
    assert {case["row"] for case in found["suspects"]} <= set((flipped * 10).tolist())


def test_without_scores_there_are_no_mistakes() -> None:
    truth = Truth(
        Target("tags", LABELS, multi=True), list(LABELS), np.arange(2), np.zeros(3, np.int64), np.empty(0, int)
    )
    found = WrongPairs().cases(truth, (np.zeros(3), np.ones(3)))
    assert found == {"mistakes": [], "suspects": [], "suspected": 0, "all_suspects": []}
