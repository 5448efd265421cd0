"""Rows that a program hands over are read as those of files are, whatever holds them."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from labelmill.contracts.errors import InvalidInput
from labelmill.core.readers import BadRow, TextBlock, given_source, read_text_blocks
from labelmill.core.readers.python_rows import PythonRows

ROWS = [{"id": "a", "text": "one", "n": 1}, {"id": "", "text": None, "n": 2}, {"id": "ü", "text": "drei", "n": 3}]
HOLDERS: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "list": list,
    "tuple": tuple,
    "iterator": iter,
    "generator": lambda rows: (row for row in rows),
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "arrow table": pa.Table.from_pylist,
    "arrow batch": pa.RecordBatch.from_pylist,
    "arrow reader": lambda rows: pa.Table.from_pylist(rows).to_reader(),
    "dataset": datasets.Dataset.from_list,
}


def read(source: object, text: str = "text", ids: str | None = None) -> tuple[TextBlock, list[str]]:
    bad: list[BadRow] = []
    rows = given_source(source)
    assert isinstance(rows, PythonRows)
    whole = TextBlock(ids=[] if ids else None)
    for block in read_text_blocks([rows], text, ids, on_bad_row=bad.append):
        whole.texts += block.texts
        if whole.ids is not None:
            whole.ids += block.ids or ()
    return whole, list(map(str, bad))


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_texts_and_ids_are_read_from_whatever_holds_them(hold: Callable[[Any], Any]) -> None:
    block, bad = read(hold(ROWS), ids="id")
    assert (block.texts, block.ids, bad) == (["one", "", "drei"], ["a", None, "ü"], [])
    block, bad = read(hold(ROWS), text="n", ids="text")
    assert (block.texts, block.ids, bad) == (["1", "2", "3"], ["one", None, "drei"], [])


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_a_column_that_is_missing_is_named_with_those_that_are_there(hold: Callable[[Any], Any]) -> None:
    with pytest.raises(InvalidInput, match=r"has no column 'txt'; it has 'id', 'text', 'n'.*did you mean 'text'"):
        read(hold(ROWS), text="txt")


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_what_holds_no_rows_is_refused(hold: Callable[[Any], Any]) -> None:
    empty = {
        pa.Table.from_pylist: pa.table({"text": pa.array([], pa.string())}),
        pa.RecordBatch.from_pylist: pa.record_batch({"text": pa.array([], pa.string())}),
        pl.DataFrame: pl.DataFrame({"text": []}),
        pd.DataFrame: pd.DataFrame({"text": []}),
    }.get(hold)
    if empty is None:
        empty = datasets.Dataset.from_dict({"text": []}) if hold is HOLDERS["dataset"] else hold([{"text": "x"}][:0])
    if type(empty).__name__ == "RecordBatchReader":
        empty = pa.table({"text": pa.array([], pa.string())}).to_reader()
    with pytest.raises(InvalidInput, match="holds no rows"):
        read(empty)


@pytest.mark.parametrize(
    "texts",
    [
        ["one", None, "drei"],
        pd.Series(["one", None, "drei"]),
        pl.Series(["one", None, "drei"]),
        pa.array(["one", None, "drei"]),
        pa.chunked_array([["one", None], ["drei"]]),
        datasets.Dataset.from_list(ROWS)["text"],
    ],
    ids=["list", "pandas", "polars", "arrow array", "arrow chunks", "dataset"],
)
def test_rows_may_be_texts_alone(texts: object) -> None:
    assert read(texts)[0].texts == ["one", "", "drei"]
    with pytest.raises(InvalidInput, match="which have no column 'id'") as refused:
        read(["one", "two"], ids="id")
    assert refused.value.field == "id_column"


def test_values_of_numpy_and_pandas_become_what_they_are_in_a_file() -> None:
    assert read(np.array(["a", "ä"]))[0].texts == ["a", "ä"]
    frame = pd.DataFrame({"text": ["a", pd.NA, 1.5, np.bool_(1)], "id": pd.array([1, 2, None, 4], dtype="Int64")})
    block, _ = read(frame, ids="id")
    assert (block.texts, block.ids) == (["a", "", "1.5", "true"], ["1", "2", None, "4"])
    assert read([{"text": np.int64(7)}, {"text": dt.date(2026, 11, 27)}])[0].texts == ["7", "2026-11-27"]


def test_cells_of_arrow_are_texts_or_missing() -> None:
    assert read(list(pa.array(["a", None])))[0].texts == ["a", ""]
    assert read([{"text": cell} for cell in pa.array([1, None])])[0].texts == ["1", ""]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (pd.DataFrame({"text": ["a"]}), "DataFrame"),
        (pa.table({"text": ["a"]}), "Table"),
        ({"a"}, "set"),
        (object(), "object"),
    ],
    ids=["frame", "table", "set", "object"],
)
def test_an_object_that_has_no_text_is_a_bad_row(value: object, kind: str) -> None:
    block, bad = read(["a", value])
    assert (block.texts, len(bad)) == (["a"], 1)
    assert f"'text' is of type {kind}, not a text" in bad[0]


@pytest.mark.parametrize("empty", [[{}], pd.DataFrame(), pl.DataFrame()], ids=["list", "pandas", "polars"])
def test_a_table_without_columns_is_told_so(empty: object) -> None:
    with pytest.raises(InvalidInput, match="has no column 'text'; it has none; "):
        read(empty)


@pytest.mark.parametrize("hold", [list, pd.DataFrame, iter], ids=["list", "pandas", "iterator"])
def test_a_row_that_cannot_be_read_is_named_by_its_number(hold: Callable[[Any], Any]) -> None:
    rows = [
        {"text": "a", "id": "1"},
        {"text": ["b"], "id": "2"},
        {"text": "\ud800", "id": "3"},
        {"text": "d", "id": "\0"},
    ]
    block, bad = read(hold(rows), ids="id")
    assert block.texts == ["a"]
    assert [line.partition(":")[2].partition(":")[0] for line in bad] == ["2", "3", "4"]


def test_many_blocks_follow_one_another() -> None:
    block, _ = read(({"text": f"t{row}", "id": str(row)} for row in range(25_001)), ids="id")
    assert block.texts == [f"t{row}" for row in range(25_001)]
    assert block.ids == [str(row) for row in range(25_001)]


def test_labels_that_a_dataset_stores_as_numbers_are_their_names() -> None:
    classes = datasets.ClassLabel(names=["no", "yes"])
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": classes, "tags": datasets.Sequence(classes)}
    )
    rows = [{"text": "a", "label": 1, "tags": [0, 1]}, {"text": "b", "label": -1, "tags": []}]
    given = given_source(datasets.Dataset.from_list(rows, features=features))
    assert isinstance(given, PythonRows)
    assert list(given.rows(["label", "tags"])) == [
        {"label": "yes", "tags": ["no", "yes"]},
        {"label": None, "tags": []},
    ]


def test_what_the_program_raises_while_rows_are_read_stays_its_own() -> None:
    def broken() -> Any:
        yield "a"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read(broken())


async def _nothing() -> AsyncIterator[str]:
    yield ""


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"texts.jsonl", "a bytes is not a path"),
        (7, "a int is not a path"),
        ({"text": "a"}, "is one row: hand over a list"),
        (pl.LazyFrame({"text": ["a"]}), "collect"),
        (datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}), "several splits"),
        (datasets.Dataset.from_list(ROWS).with_transform(lambda rows: rows), r"map\(\)"),
        (_nothing(), "AsyncClient takes asynchronous"),
    ],
    ids=["bytes", "number", "mapping", "lazy", "dict of datasets", "transform", "asynchronous"],
)
def test_what_is_no_source_is_refused_in_one_sentence(source: object, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        given_source(source)
    assert refused.value.field == "source"


def test_a_path_stays_a_path(tmp_path: Path) -> None:
    assert given_source(tmp_path / "a.jsonl") == str(tmp_path / "a.jsonl")
    assert given_source("*.jsonl") == "*.jsonl"
    with (tmp_path / "a.jsonl").open("w+") as file, pytest.raises(InvalidInput, match="by its path"):
        given_source(file)


def test_no_library_is_imported_to_look_at_a_source() -> None:
    program = """
import sys
from labelmill.core.readers import given_source
given_source([{"text": "a"}])
print(sys.modules.keys() & {"pandas", "polars", "pyarrow", "datasets"})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
