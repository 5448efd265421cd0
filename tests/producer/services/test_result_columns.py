"""Names of targets and of kept columns that are names of other columns too."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmill.contracts.bounds import RESULT_COLUMNS, TARGET_SUFFIXES, fault_of_targets
from labelmill.services.results.columns import ResultColumns
from labelmill.services.results.export import write_results

_WORDS = ["x", "x_score", "x_scores", "x_best", "x_score_score", *RESULT_COLUMNS, "target_id", "source_id", "best"]
_TARGETS = ["id", "text", "error_code", "x_score", "x", "target_id"]
_KEPT = ["id", "source_id", "x", "row"]


@given(st.lists(st.sampled_from(_WORDS), unique=True), st.lists(st.sampled_from(_WORDS)))
def test_no_two_columns_have_one_name(targets: list[str], keep: list[str]) -> None:
    columns = ResultColumns(targets, keep)
    names = [*RESULT_COLUMNS, *columns.kept.values()]
    for name in columns.targets.values():
        names += [name, *(name + suffix for suffix in TARGET_SUFFIXES)]
    assert len(set(names)) == len(names)
    assert (columns.targets.keys(), columns.kept.keys()) == (set(targets), set(keep))
    if fault_of_targets(targets) is None:
        assert all(name == target for target, name in columns.targets.items()), "an innocent name was changed"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_ids_texts_and_labels_survive_targets_and_kept_columns_of_their_names(tmp_path: Path, suffix: str) -> None:
    row: dict[str, Any] = {
        "row": 7,
        "id": "mine",
        "text": "words",
        "error": None,
        "keep": {name: f"kept {name}" for name in _KEPT},
        "predictions": {name: {"label": f"label of {name}", "score": 0.5, "scores": {}} for name in _TARGETS},
    }
    output = tmp_path / f"out{suffix}"
    write_results([json.dumps(row).encode() + b"\n"], _TARGETS, output, _KEPT)
    if suffix == ".csv":
        with output.open() as lines:
            (found,) = csv.DictReader(lines)
    else:
        import pyarrow.parquet as pq  # noqa: PLC0415

        (found,) = pq.read_table(output).to_pylist()
    values = list(map(str, found.values()))
    assert (found["id"], found["text"], found["error_code"] or "") == ("mine", "words", "")
    assert str(found["row"]) == "7"
    for name in _TARGETS:
        assert values.count(f"label of {name}") == 1
    for name in _KEPT:
        assert values.count(f"kept {name}") == 1
