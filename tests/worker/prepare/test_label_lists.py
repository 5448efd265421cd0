"""Several labels in one cell of text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmill_worker.prepare.label_lists import labels_in_text

LABELS = st.lists(st.text(st.characters(exclude_categories=["Cs"])))


@given(LABELS)
def test_a_list_as_python_prints_it_is_read_back(labels: list[str]) -> None:
    assert labels_in_text(f" {labels!r} ", None) == labels
    assert labels_in_text(ascii(labels), ";") == labels


@given(LABELS)
def test_a_json_list_is_read_back(labels: list[str]) -> None:
    assert labels_in_text(json.dumps(labels), None) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("['a' 'b']", ["a", "b"]),
        ("['a'\n \"it's\"]", ["a", "it's"]),
        ("['a', None, 7, -1.50, True]", ["a", None, "7", "-1.50", True]),
        ("[]", []),
        ("['a',]", ["a"]),
        ("a|b,c", ["a", "b,c"]),
        ("a,b", ["a", "b"]),
    ],
)
def test_other_ways_to_write_several_labels(text: str, labels: list[Any]) -> None:
    assert labels_in_text(text, None) == labels


def test_a_separator_of_ones_own_is_the_only_one() -> None:
    assert labels_in_text("a;b|c,d", ";") == ["a", "b|c,d"]


@pytest.mark.parametrize(
    "text",
    [
        "['a', 'b'",
        "['a' b]",
        "[a]",
        "['a''b']",
        "[__import__('os').system('true')]",
        "[['a']]",
        "['a'] + ['b']",
        "[f'a']",
        r"['\q']",
        r"['\U00110000']",
        "[1 2]",
        "['a', , 'b']",
    ],
)
def test_what_is_no_list_is_refused_and_never_run(text: str) -> None:
    with pytest.raises(ValueError, match=r"\[|escape|\\"):
        labels_in_text(text, None)
