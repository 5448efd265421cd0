"""Columns of the source beside the results."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.specs import ClassifySpec, FileFormat
from labelmill.core.chunks.codec import QuotedInput
from labelmill.core.readers import inputs_of
from labelmill.services.results import kept_columns
from labelmill.services.results.export import write_parquet_results, write_results
from labelmill.services.results.lines import ChunkResults
from labelmill.services.results.tables import ResultTable

_ROWS = [{"row": row, "id": str(row), "text": f"t{row}", "predictions": {}, "error": None} for row in (0, 2)]
_BLOCKS = [b"".join(json.dumps(row).encode() + b"\n" for row in _ROWS)]


def _reader(spec: ClassifySpec, columns: list[str]) -> kept_columns.ReadKept:
    return kept_columns.kept_reader(spec, columns, partial(inputs_of, spec.source))


def keep_columns(blocks: list[bytes], spec: ClassifySpec, columns: list[str]) -> Iterator[bytes]:
    return kept_columns.keep_columns(blocks, _reader(spec, columns))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.csv"
    path.write_text("text,team,row\nt0,north,7\nt1,,8\nt2,=1+1,9\n")
    return path


def test_each_row_has_the_columns_of_its_own_line(source: Path) -> None:
    (block,) = keep_columns(_BLOCKS, ClassifySpec(source=str(source)), ["team"])
    assert [json.loads(line)["keep"] for line in block.splitlines()] == [{"team": "north"}, {"team": "=1+1"}]


def test_in_a_table_they_follow_the_others_and_a_name_that_is_taken_gets_a_prefix(source: Path, tmp_path: Path) -> None:
    output, keep = tmp_path / "out.csv", ["team", "row"]
    write_results(keep_columns(_BLOCKS, ClassifySpec(source=str(source)), keep), [], output, keep)
    with output.open() as lines:
        found = list(csv.DictReader(lines))
    assert [(row["row"], row["team"], row["source_row"]) for row in found] == [("0", "north", "7"), ("2", "'=1+1", "9")]


def test_in_parquet_they_are_those_of_the_same_rows(source: Path, tmp_path: Path) -> None:
    output, keep = tmp_path / "out.parquet", ["team", "row"]
    errors = dict.fromkeys((0, 2), ("empty_text", ""))
    chunk = ChunkResults(0, QuotedInput([b"t0", b"t1", b"t2"], None, has_repeats=False), [], errors)
    read_kept = _reader(ClassifySpec(source=str(source)), keep)
    write_parquet_results([chunk], ResultTable([], keep, with_scores=True), output, read_kept)
    found = pq.read_table(output, columns=["row", "team", "source_row"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [(0, "north", "7"), (2, "=1+1", "9")]


@pytest.mark.parametrize("now", ["text,team\nt0,a\nother,b\nother,c\n", "text,team\nt0,a\n"])
def test_a_source_that_has_changed_is_refused(source: Path, now: str) -> None:
    source.write_text(now)
    with pytest.raises(InvalidInput, match="not what was classified"):
        list(keep_columns(_BLOCKS, ClassifySpec(source=str(source)), ["team"]))


def test_standard_input_cannot_be_read_again() -> None:
    with pytest.raises(InvalidInput, match="standard input"):
        list(keep_columns(_BLOCKS, ClassifySpec(source="-"), ["team"]))


def test_rows_that_were_left_out_are_left_out_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "t0", "team": "north"}\n{\n{"text": "t1"}\n{"text": ["t"]}\n{"text": "t2", "team": 5}\n')
    (block,) = keep_columns(_BLOCKS, ClassifySpec(source=str(path), on_bad_row="skip"), ["team"])
    assert [json.loads(line)["keep"] for line in block.splitlines()] == [{"team": "north"}, {"team": 5}]


def test_columns_are_kept_from_a_file_as_it_was_read_at_submission(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text;team\nt0;größer\nt1;\nt2;b\n".encode("cp1252"))
    form = FileFormat(kind="csv", encoding="cp1252", delimiter=";")
    (block,) = keep_columns(_BLOCKS, ClassifySpec(source=str(path), formats=(form,)), ["team"])
    assert [json.loads(line)["keep"] for line in block.splitlines()] == [{"team": "größer"}, {"team": "b"}]


def test_a_pipe_cannot_be_read_again() -> None:
    with pytest.raises(InvalidInput, match="or a pipe"):
        list(keep_columns(_BLOCKS, ClassifySpec(source="/dev/fd/63"), ["team"]))
