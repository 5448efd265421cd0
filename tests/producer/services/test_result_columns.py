"""Names of targets and of kept columns that are names of other columns too."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmill.contracts.bounds import RESULT_COLUMNS, TARGET_SUFFIXES, fault_of_targets
from labelmill.contracts.label_schema import Target
from labelmill.core.chunks.codec import QuotedInput
from labelmill.services.results.columns import ResultColumns
from labelmill.services.results.export import write_parquet_results, write_results
from labelmill.services.results.lines import ChunkResults, TargetAnswers
from labelmill.services.results.tables import ResultTable

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
    half = np.full(1, 0.5, np.float32).tobytes()
    answers = [
        (target, TargetAnswers.of_rows(target, [(7, target.labels[0], None, 0.5, half)]))
        for target in (Target(name, (f"label of {name}",)) for name in _TARGETS)
    ]
    chunk = ChunkResults(7, QuotedInput([b"words"], [b"mine"], has_repeats=False), answers)
    keep = {name: f"kept {name}" for name in _KEPT}
    output = tmp_path / f"out{suffix}"
    found: dict[str, Any]
    if suffix == ".csv":
        row = orjson.loads(b"".join(chunk.lines())) | {"keep": keep}
        write_results([orjson.dumps(row) + b"\n"], _TARGETS, output, _KEPT)
        with output.open() as lines:
            (found,) = csv.DictReader(lines)
    else:
        import pyarrow.parquet as pq  # noqa: PLC0415

        table = ResultTable(_TARGETS, _KEPT, with_scores=True)
        assert write_parquet_results([chunk], table, output, lambda row, text: keep) == 1
        (found,) = pq.read_table(output).to_pylist()
    values = list(map(str, found.values()))
    assert (found["id"], found["text"], found["error_code"] or "") == ("mine", "words", "")
    assert str(found["row"]) == "7"
    for name in _TARGETS:
        assert values.count(f"label of {name}") == 1
    for name in _KEPT:
        assert values.count(f"kept {name}") == 1
