"""Which texts of a stream were there before."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmill.core.chunks.distinct import DistinctTexts


class SameHash(str):
    """A text with Python's hash of every other one, as whoever knows the key can make them."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 7


class Colliding(str):
    """A text that wants the same place in a table as every other one, however large the table is."""

    __slots__ = ()

    def __hash__(self) -> int:
        return int(self) << 32


def _expected(blocks: Sequence[Sequence[str]]) -> list[int]:
    first: dict[str, int] = {}
    rows = [first.setdefault(text, row) for row, text in enumerate(text for block in blocks for text in block)]
    return [-1 if first == row else first for row, first in enumerate(rows)]


def _found(blocks: Sequence[Sequence[str]]) -> list[int]:
    distinct = DistinctTexts()
    return [row for block in blocks for row in distinct.first_rows(block).tolist()]


@given(st.lists(st.lists(st.sampled_from(["", "a", "b", "c", "\0", "ä", "a ", "\U0001f525"]), max_size=12), max_size=6))
def test_each_row_is_told_the_first_with_its_text(blocks: list[list[str]]) -> None:
    assert _found(blocks) == _expected(blocks)


@given(st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=5))
def test_texts_that_want_the_same_place_are_told_apart(numbers: list[list[int]]) -> None:
    blocks = [[Colliding(number) for number in block] for block in numbers]
    assert _found(blocks) == _expected(blocks)


@pytest.mark.parametrize("block_size", [700, 10_000, 150_000])
def test_what_was_seen_is_still_known_after_the_table_grew(block_size: int) -> None:
    chance = random.Random(1)
    texts = [f"text {chance.randrange(200_000)}" for _ in range(300_000)]
    blocks = [texts[at : at + block_size] for at in range(0, len(texts), block_size)]
    assert _found(blocks) == _expected(blocks)


def test_texts_made_to_collide_are_told_apart_where_the_hash_seed_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    blocks = [[SameHash("one"), SameHash("two")], [SameHash("one"), SameHash("three")]]
    assert _found(blocks) == [-1, -1, 0, -1]


@pytest.mark.parametrize("seed", ["0", "42", "random", ""])
def test_no_two_submissions_hash_alike_whatever_the_seed_is(seed: str) -> None:
    """A fixed seed is for whole processes: it is Python that reads it, before any code runs."""
    code = """
from labelmill.core.chunks.distinct import DistinctTexts
for _ in range(2):
    distinct = DistinctTexts()
    distinct.first_rows(["a text"])
    print(distinct._hashes[0])
"""
    found = [
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert not set(found[0]) & set(found[1]), "somebody who knows the seed knows the hashes"
    if seed.isdigit():
        assert found[0][0] != found[0][1]
