"""How results are written: which scores, in which kind of CSV, as which Parquet types."""

from __future__ import annotations

import codecs
import csv
import io
import os
import pty
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from asked import refused
from sqlalchemy import select
from sqlalchemy.engine import Engine

from labelmill.cli.classify import classify
from labelmill.cli.results import labels_are_shown, results
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.label_schema import Target
from labelmill.core.chunks.codec import QuotedInput
from labelmill.core.database import reading
from labelmill.core.database.tables import BatchRow
from labelmill.services.results.csv_files import CsvOptions, parse_delimiter
from labelmill.services.results.export import write_parquet_results, write_results
from labelmill.services.results.lines import ChunkResults, TargetAnswers
from labelmill.services.results.saving import OutputOptions
from labelmill.services.results.scores import ALL, NONE, ScoreChoice, parse_scores
from labelmill.services.results.tables import ResultTable

_SCORES = {'a "quoted"': 0.5, "two\nlines": 0.25, "50%": 0.125, "": 0.125}
_ROWS = [
    {
        "row": 0,
        "id": "x;y",
        "text": "=1+1",
        "error": None,
        "predictions": {
            "t": {"label": "50%", "score": 0.5, "scores": _SCORES},
            "m": {"labels": [], "score": 0.1, "scores": {"x": 0.1}},
        },
    },
    {
        "row": 1,
        "id": None,
        "text": "b",
        "error": {"code": "empty_text", "message": "the text is empty"},
        "predictions": {},
    },
    {
        "row": 2,
        "id": "2",
        "text": "c",
        "error": None,
        "predictions": {"t": {"label": None, "abstained": True, "best": "50%", "score": 0.5, "scores": {}}},
    },
]


def _blocks() -> list[bytes]:
    return [orjson.dumps(row) + b"\n" for row in _ROWS]


def _csv(**options: Any) -> bytes:
    output = Path("out.csv")
    write_results(_blocks(), ["t", "m"], output, csv=CsvOptions(**options), with_scores=False)
    return output.read_bytes()


@pytest.mark.parametrize(("written", "choice"), [("all", ALL), ("none", NONE), ("top:3", ScoreChoice(3))])
def test_scores_are_chosen_by_word(written: str, choice: ScoreChoice) -> None:
    assert parse_scores(written) == choice


@pytest.mark.parametrize("written", ["", "top", "top:", "top:0", "top:-1", "top:1.5", "top: 3", "top:٣", "ALL", "5"])
def test_other_words_are_refused(written: str) -> None:
    with refused("--scores is none, all or top:K"):
        parse_scores(written)


@pytest.mark.parametrize(
    ("job", "output", "expected"),
    [
        ("batch_1", "a.csv", NONE),
        ("batch_1", "a.CSV", NONE),
        ("batch_1", "a.jsonl", ALL),
        ("batch_1", "a.parquet", ALL),
        ("batch_1", None, ALL),
        ("eval_1", "a.csv", ALL),
    ],
)
def test_scores_by_default(job: str, output: str | None, expected: ScoreChoice) -> None:
    path = Path(output) if output else None
    assert OutputOptions().scores_of(job, path) == expected
    assert OutputOptions(ScoreChoice(2)).scores_of(job, path) == ScoreChoice(2)


def test_a_table_without_scores_keeps_labels_and_their_scores() -> None:
    first, failed, silent = csv.DictReader(io.StringIO(_csv().decode(), newline=""))
    assert list(first) == [
        "row",
        "id",
        "text",
        "t",
        "t_score",
        "t_best",
        "m",
        "m_score",
        "m_best",
        "error_code",
        "error_message",
    ]
    assert (first["t"], first["t_score"], first["m"]) == ("50%", "0.5", "[]")
    assert (failed["t"], failed["error_code"]) == ("", "empty_text")
    assert (silent["t"], silent["t_best"], silent["t_score"]) == ("", "50%", "0.5")


@pytest.mark.parametrize("sign", [";", "\t", "|", ":"])
def test_another_delimiter(sign: str) -> None:
    written = _csv(delimiter=sign)
    first, *_ = csv.DictReader(io.StringIO(written.decode(), newline=""), delimiter=sign)
    assert (first["id"], first["text"], first["t"]) == ("x;y", "'=1+1", "50%")


def test_a_byte_order_mark_stands_at_the_start_alone() -> None:
    assert _csv(bom=True) == codecs.BOM_UTF8 + _csv()


def test_formulas_stay_where_that_is_asked_for() -> None:
    assert b",=1+1," in _csv(protect=False)
    assert b",'=1+1," in _csv()


@pytest.mark.parametrize("other", [",", ";", "|", "\t"])
@pytest.mark.parametrize("own", [",", ";", "|", "\t"])
def test_cells_behind_another_separator_than_the_files_own_are_no_formulas(own: str, other: str) -> None:
    output = Path("out.csv")
    row = _ROWS[1] | {"text": f"1{other}-2+3{other}=1"}
    write_results([orjson.dumps(row) + b"\n"], [], output, csv=CsvOptions(delimiter=own))
    (found,) = csv.DictReader(io.StringIO(output.read_text(), newline=""), delimiter=own)
    minus = "-2+3" if own == other else "'-2+3"
    assert found["text"] == f"1{other}{minus}{other}'=1"


@pytest.mark.parametrize(("written", "sign"), [(";", ";"), ("tab", "\t"), ("\\t", "\t"), ("\t", "\t"), (",", ",")])
def test_a_delimiter_may_be_named(written: str, sign: str) -> None:
    assert parse_delimiter(written) == sign


@pytest.mark.parametrize("written", ["", ";;", '"', "\n", "\r", "a", "1", " ", "=", "-", "\x00", "\udcff", "'"])
def test_what_cannot_separate_cells_is_refused(written: str) -> None:
    with refused("--output-delimiter is one sign"):
        parse_delimiter(written)


def test_scores_in_parquet_are_maps() -> None:
    output, target = Path("out.parquet"), Target("t", ("50%", ""))
    scores = [(row, label, None, 0.5, np.array([0.5, 0.25], "<f4").tobytes()) for row, label in ((0, "50%"), (2, None))]
    chunk = ChunkResults(
        0,
        QuotedInput([b"a", b"b", b"c"], None, has_repeats=False),
        [(target, TargetAnswers.of_rows(target, scores))],
        {1: ("empty_text", "the text is empty")},
    )
    assert write_parquet_results([chunk], ResultTable(["t"], (), with_scores=True), output) == 3
    found = pq.read_table(output)
    assert found.schema.field("t_scores").type == pa.map_(pa.string(), pa.float32())
    assert found["t_scores"].to_pylist() == [[("50%", 0.5), ("", 0.25)], None, [("50%", 0.5), ("", 0.25)]]
    assert (found["t"].to_pylist(), found["t_best"].to_pylist()) == (["50%", None, None], [None, None, "50%"])
    assert found["error_code"].to_pylist() == [None, "empty_text", None]


def test_numbers_in_parquet_have_no_dictionary() -> None:
    output, target = Path("out.parquet"), Target("a.b", ("x",))
    answers = TargetAnswers.of_rows(target, [(0, "x", None, 0.5, np.array([0.5], "<f4").tobytes())])
    chunk = ChunkResults(0, QuotedInput([b"a"], None, has_repeats=False), [(target, answers)])
    write_parquet_results([chunk], ResultTable(["a.b"], (), with_scores=True), output)
    group = pq.read_metadata(output).row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    assert {column.path_in_schema for column in columns if not column.has_dictionary_page} == {
        "row",
        "a.b_score",
        "a.b_scores.key_value.value",
    }


def test_parquet_without_rows_has_its_columns() -> None:
    output = Path("out.parquet")
    assert write_parquet_results([], ResultTable(["t"], (), with_scores=True), output) == 0
    assert pq.read_table(output).num_rows == 0
    assert "t_scores" in pq.read_schema(output).names
    write_parquet_results([], ResultTable(["t"], (), with_scores=False), output)
    assert "t_scores" not in pq.read_schema(output).names


@pytest.mark.parametrize("output", [None, "out.jsonl", "out.parquet"])
@pytest.mark.parametrize("option", [{"output_delimiter": ";"}, {"bom": True}, {"no_escape": True}])
def test_options_of_csv_are_refused_elsewhere(output: str | None, option: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="only go with CSV"):
        results("batch_1", output, **option)


def _refused(words: str, engine: Engine, **options: Any) -> None:
    """`classify` is refused, and nothing was written."""
    with refused(words):
        classify("rows.jsonl", "ft:x", **options)
    with reading(engine) as connection:
        assert connection.execute(select(BatchRow.id)).all() == []


def test_what_classify_cannot_write_is_refused_before_it_is_paid_for(engine: Engine) -> None:
    Path("rows.jsonl").write_text('{"text": "a", "team": "b"}\n')
    to_file = {"wait": True, "output": "out.csv"}
    _refused("rows.jsonl has no column 'tame'; it has 'text', 'team'", engine, keep=["team", "tame"], **to_file)
    _refused("--scores is none, all or top:K", engine, scores="some", **to_file)
    _refused("--output-delimiter is one sign", engine, output_delimiter="ab", **to_file)
    _refused("--scores and --keep go with -o FILE", engine, keep=["team"], wait=True)
    _refused("--bom only go with CSV|--bom", engine, bom=True, wait=True)


def test_what_cannot_be_read_again_has_no_columns_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "a"}\n')))
    with refused("--keep reads the source again"):
        classify("-", "ft:x", wait=True, output="out.csv", keep=["team"])


def test_labels_are_shown_to_who_types_texts_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    try:
        with os.fdopen(theirs, "w") as terminal:
            monkeypatch.setattr(sys, "stdout", terminal)
            assert labels_are_shown("-", as_json=False)
            assert not labels_are_shown("-", as_json=True)
            assert not labels_are_shown("rows.jsonl", as_json=False)
    finally:
        os.close(ours)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not labels_are_shown("-", as_json=False)
