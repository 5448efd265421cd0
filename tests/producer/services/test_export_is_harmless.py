"""CSV that a spreadsheet opens: no cell of a stranger's runs, no number is changed."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from labelmill.services.results.export import write_results

#: With which a formula begins; the latter four are wide ones.
SIGNS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def _row(number: int, text: str, label: str = "play", **changes: Any) -> dict[str, Any]:
    answer = {"label": label, "score": 1e-05, "scores": {label: 1e-05}}
    return {"row": number, "id": text, "text": text, "predictions": {"intent": answer}, "error": None} | changes


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_begins_like_a_formula(start: str) -> None:
    content = f'{start}HYPERLINK("http://x","y")'
    kept = f"{start}kept"
    rows = [
        _row(0, content, label=content, keep={f"{start}column": kept}),
        _row(1, "x", predictions={}, error={"code": "e", "message": content}),
    ]
    output = Path("out.csv")
    write_results([orjson.dumps(row) + b"\n" for row in rows], ["intent", f"{start}target"], output, [f"{start}column"])
    with output.open(newline="") as file:
        lines = list(csv.reader(file))
    assert len(lines) == 3
    assert not [cell for line in lines for cell in line if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert f"'{content}" in lines[1]


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize(
    "before", [";", "; ", ';"', "a;", "a; b ;", "\t", "x\t", "|", "a\n", "a\r\n", 'a\n" ', " ", "\n", '"']
)
def test_no_cell_of_a_spreadsheet_that_splits_elsewhere_begins_like_a_formula(before: str, sign: str) -> None:
    content = f"{before}{sign}cmd|' /C calc'!A0"
    output = Path("out.csv")
    row = _row(0, content, label=content, keep={content: [content]}, error={"code": "e", "message": content})
    write_results([orjson.dumps(row) + b"\n"], ["intent", content], output, [content])
    for separators in (";", "\t", "|", ";\t|"):
        cells = re.split(f"[{separators}\r\n]", output.read_text())
        assert not [cell for cell in cells if cell.lstrip(' "').startswith(SIGNS)]
    with output.open(newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not [cell for cell in cells if cell.lstrip(' "').startswith(sign)]


def test_lists_of_numbers_and_plain_words_are_not_changed() -> None:
    output = Path("out.csv")
    kept = {"vector": [0.5, -1.5, 2], "words": "well-known, - a 10-step: x=1 a@b.c", "minus": "-3"}
    write_results([orjson.dumps(_row(0, "a", keep=kept)) + b"\n"], ["intent"], output, list(kept))
    with output.open(newline="") as file:
        (found,) = csv.DictReader(file)
    assert (found["vector"], found["words"], found["minus"]) == ("[0.5,-1.5,2]", kept["words"], "-3")


def test_a_carriage_return_begins_no_line_of_its_own() -> None:
    output = Path("out.csv")
    write_results([orjson.dumps(_row(0, "harmless\r=1+1")) + b"\n"], ["intent"], output)
    assert b'"harmless\r\'=1+1"' in output.read_bytes()
    assert output.read_bytes().count(b"\r\n") == 0


def test_numbers_are_not_changed() -> None:
    rows = [
        _row(0, "x", predictions={"intent": {"label": "a", "score": -0.5, "scores": {"a": -0.5}}}),
        _row(1, "-17"),
        _row(2, "+1.5e-3"),
        _row(3, "-1+1"),
    ]
    output = Path("out.csv")
    write_results([orjson.dumps(row) + b"\n" for row in rows], ["intent"], output)
    with output.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [line["intent_score"] for line in found] == ["-0.5", *["1e-05"] * 3]
    assert [line["id"] for line in found] == ["x", "-17", "+1.5e-3", "'-1+1"]
