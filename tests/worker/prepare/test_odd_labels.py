"""Labels and target names that a database, a table of results or Mistral could not keep are bad rows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmill.contracts.bounds import RESULT_COLUMNS, fault_of_label, fault_of_targets
from labelmill.contracts.errors import MalformedAnswer
from labelmill.contracts.specs import PrepareSpec, TargetSpec
from labelmill_worker.inference.answers import learn_schema
from labelmill_worker.prepare.parse import (
    BAD_ROW,
    ParsedRow,
    TargetList,
    UnusableRow,
    parse_column_row,
    parse_factory_row,
)

ODD = st.one_of(st.text(st.characters(), max_size=8), st.sampled_from(["a\x00b", "x" * 1_001, "y" * 10_000, "\ud800"]))
SPEC = PrepareSpec(name="n", source="s", targets=(TargetSpec(name="t", column="c", multi=True),))


def outcome(parse: Any, *arguments: Any) -> ParsedRow | str:
    try:
        found: ParsedRow = parse(*arguments)
    except UnusableRow as unusable:
        return unusable.detail or unusable.reason
    return found


@given(ODD)
def test_a_label_is_kept_or_its_row_is_bad(label: str) -> None:
    for row in (
        outcome(parse_column_row, {"text": "words", "c": [label]}, SPEC),
        outcome(parse_factory_row, {"text": "words", "labels": {"t": [label]}}, TargetList()),
    ):
        kept = [one for labels in row.labels for one in labels] if isinstance(row, ParsedRow) else []
        assert all(fault_of_label(one) is None for one in kept)
        assert bool(kept) == (bool(label.strip()) and fault_of_label(label.strip()) is None)


@given(st.lists(st.one_of(ODD, st.sampled_from(["x", "x_score", *RESULT_COLUMNS])), min_size=1, unique=True))
def test_targets_in_the_factorys_format_are_held_to_the_rules_of_options(names: list[str]) -> None:
    row = outcome(parse_factory_row, {"text": "words", "labels": dict.fromkeys(names, "label")}, TargetList())
    assert isinstance(row, ParsedRow) == (fault_of_targets(names) is None)
    assert isinstance(row, ParsedRow) or len(row) < 300


def test_a_chat_that_cannot_be_written_is_a_bad_row() -> None:
    messages = [{"role": "user", "content": "a\ud800"}]
    with pytest.raises(UnusableRow) as bad:
        parse_column_row({"text": messages, "c": ["a"]}, SPEC)
    assert bad.value.reason == BAD_ROW


@pytest.mark.parametrize(
    "answer",
    [
        {"x" * 201: {"scores": {"a": 1.0}}},
        {"a\x00": {"scores": {"a": 1.0}}},
        {"t": {"scores": {"a\x00b": 1.0}}},
        {"t": {"scores": {"y" * 10_000: 1.0}}},
        {f"t{number}": {"scores": {"a": 1.0}} for number in range(40_000)},
    ],
)
def test_a_models_first_answer_with_names_that_cannot_be_kept_is_malformed(answer: Any) -> None:
    with pytest.raises(MalformedAnswer) as malformed:
        learn_schema([answer], ())
    assert len(malformed.value.message) < 300
