"""The split, for any labels and any parts."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from labelmill_worker.prepare.split import split_sizes, stratified_split

counts = st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(any)
parts = st.tuples(*[st.sampled_from([0, 1, 5, 10, 20, 33.3, 80])] * 3).filter(any)


@settings(max_examples=200, deadline=None)
@given(counts, parts, st.integers(0, 2**32 - 1))
def test_a_split_parts_the_rows_and_keeps_the_sizes(
    rows: list[int], split: tuple[float, float, float], seed: int
) -> None:
    strata = np.repeat(np.arange(len(rows)), rows)
    found = stratified_split(strata, split, seed)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(strata)))
    assert tuple(map(len, found)) == split_sizes(len(strata), split)
    again = stratified_split(strata, split, seed)
    assert [a.tolist() for a in found] == [b.tolist() for b in again]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(30, 200), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_each_label_gets_its_share_of_each_split(rows: list[int], seed: int) -> None:
    strata = np.repeat(np.arange(len(rows)), rows)
    for found, share in zip(stratified_split(strata, (80, 10, 10), seed), (0.8, 0.1, 0.1), strict=True):
        for label, count in enumerate(rows):
            assert abs(np.count_nonzero(strata[found] == label) - share * count) < 2


def test_what_does_not_divide_goes_to_the_later_split() -> None:
    assert split_sizes(6642, (80, 10, 10)) == (5313, 664, 665)
    assert split_sizes(10, (0.8, 0.1, 0.1)) == (8, 1, 1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(30, 90), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_the_cut_is_scikit_learns(rows: list[int], seed: int) -> None:
    strata = np.random.RandomState(1).permutation(np.repeat(np.arange(len(rows)), rows))
    _, validation, test = split_sizes(len(strata), (80, 10, 10))
    train, rest = train_test_split(
        np.arange(len(strata)), test_size=validation + test, random_state=seed, stratify=strata
    )
    expected = [train, *train_test_split(rest, test_size=test, random_state=seed, stratify=strata[rest])]
    found = stratified_split(strata, (80, 10, 10), seed)
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]
