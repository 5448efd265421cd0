"""Lines and rows without an end: a bad row with its number, the next one is read, and memory stays bounded."""

from __future__ import annotations

import gzip
import io
import random
import subprocess
import sys
from pathlib import Path

import pytest

from labelmill.contracts.errors import InvalidInput
from labelmill.core.readers import BadRow, Input, read_rows, read_text_blocks, whole_lines
from labelmill.core.readers.formats import csv_lines

LIMIT = 4_000
BLOCK = 500

_MEASURE = """
import resource, sys
from pathlib import Path
from labelmill.contracts.errors import InvalidInput
from labelmill.core.readers import read_rows, read_text_blocks
import msgspec, numpy
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
source = Path(sys.argv[1]) if sys.argv[1] != "-" else sys.stdin.buffer
before, bad = peak(), []
rows = []
try:
    if sys.argv[2] == "texts":
        for block in read_text_blocks([source], "text", None, on_bad_row=bad.append):
            rows += block.texts
    else:
        rows = [row.values["text"] for row in read_rows([source], columns=["text"], on_bad_row=bad.append)]
except InvalidInput as error:
    print(error.message, file=sys.stderr)
print(peak() - before, rows[:1], [(one.line, one.reason) for one in bad[:1]], sep="\\n")
"""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (whole_lines, csv_lines):
        monkeypatch.setattr(module, "MAX_LINE_BYTES", LIMIT)
        monkeypatch.setattr(module, "BLOCK_BYTES", BLOCK)


def read(source: Input, how: str) -> tuple[list[str], list[int], str]:
    bad: list[BadRow] = []
    if how == "texts":
        rows = [t for block in read_text_blocks([source], "text", None, on_bad_row=bad.append) for t in block.texts]
    else:
        rows = [row.values["text"] for row in read_rows([source], columns=["text"], on_bad_row=bad.append)]
    return rows, [one.line for one in bad], "; ".join(one.reason for one in bad)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("how", ["texts", "rows"])
@pytest.mark.parametrize("length", [LIMIT + 1, LIMIT + BLOCK, 5 * LIMIT])
@pytest.mark.parametrize("where", [0, 1, 30])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "stdin"])
def test_a_line_that_is_too_long_is_a_bad_row_and_the_next_one_is_read(
    tmp_path: Path, how: str, length: int, where: int, kind: str
) -> None:
    texts = [f"text {number} ä" for number in range(60)]
    lines = texts.copy() if kind == "csv" else [f'{{"text": "{text}"}}' for text in texts]
    lines.insert(where, "x" * length)
    if kind == "csv":
        lines.insert(0, "text")
    content = "\n".join(lines).encode() + b"\n"
    file = tmp_path / f"a.{kind}"
    file.write_bytes(content)
    source = io.BytesIO(content) if kind == "stdin" else file
    found, bad, reason = read(source, how)
    assert found == texts
    assert bad == [where + (2 if kind == "csv" else 1)]
    assert "longer than" in reason


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("how", ["texts", "rows"])
def test_a_line_that_is_just_short_enough_is_read(tmp_path: Path, how: str) -> None:
    long = "x" * (LIMIT - len('{"text": ""}'))
    file = tmp_path / "a.jsonl"
    file.write_text(f'{{"text": "{long}"}}\n{{"text": "{long}y"}}\n{{"text": "{long}"}}')
    assert read(file, how)[:2] == ([long, long], [2])


@pytest.mark.usefixtures("small")
def test_a_quote_that_is_never_closed_ends_its_row_at_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    lines = ["text,n", "first,1", '"second,2', *(f"row {number},{number}" for number in range(2_000))]
    file.write_text("\n".join(lines) + "\n")
    found, bad, reason = read(file, "rows")
    assert found == ["first", *(f"row {number}" for number in range(2_000))]
    assert (bad, "a quote may never be closed" in reason) == ([3], True)


@pytest.mark.usefixtures("small")
def test_rows_after_one_that_is_too_long_have_their_own_line_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    rows = ["a,b", '"' + "x\n" * LIMIT + "x", "too,many,cells", f'"{"x" * 2 * LIMIT}",1', "again,too,many", "good,1"]
    file.write_text("\n".join(rows) + "\n")
    bad: list[BadRow] = []
    found = list(read_rows([file], columns=None, on_bad_row=bad.append))
    assert [(row.line, row.values) for row in found][-1] == (LIMIT + 6, {"a": "good", "b": "1"})
    lines = [one.line for one in bad if "3 cells" in one.reason]
    assert lines == [LIMIT + 3, LIMIT + 5]


@pytest.mark.usefixtures("small")
def test_many_quoted_cells_that_are_too_long_together_refuse_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    cell = '"' + "x\n" * (LIMIT // 8) + '"'
    file.write_text(f"a,b\n{','.join([cell] * 40)}\n")
    bad: list[BadRow] = []
    with pytest.raises(InvalidInput, match=r"the row that begins on line 2 is longer than"):
        list(read_rows([file], columns=None, on_bad_row=bad.append))
    assert bad == [], "no part of it is taken for a row"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("carriage_returns", [False, True])
def test_lines_come_whole_however_they_lie_in_the_file(seed: int, *, carriage_returns: bool) -> None:
    rng = random.Random(seed)
    breaks = [b"\n", b"\r\n", b"\r"] if carriage_returns else [b"\n", b"\r\n"]
    line_break = rng.choice(breaks)
    lengths = [rng.choice((0, 1, 30, BLOCK - 1, BLOCK, LIMIT - 2, LIMIT + BLOCK, 3 * LIMIT)) for _ in range(80)]
    lines = [bytes(rng.choices(b"abc ", k=length)) for length in lengths]
    content = line_break.join(lines) + rng.choice((b"", line_break))
    found: list[bytes | None] = []
    for block in whole_lines.whole_lines(io.BytesIO(content), carriage_returns=carriage_returns):
        if block is None:
            found.append(None)
        else:
            end = line_break if block.endswith(line_break) else b""
            found += block.removesuffix(end).split(line_break)
    expected = [None if len(line) > LIMIT else line for line in lines]
    assert found in (expected, expected[:-1] if not lines[-1] else expected)


@pytest.mark.parametrize(
    ("name", "start", "repeated", "end", "how", "most_mib"),
    [
        ("a.jsonl.gz", b'{"text": "a"}\n', b"x" * 1_000, b'\n{"text": "b"}\n', "texts", 150),
        ("a.jsonl.gz", b'{"text": "a"}\n', b"x" * 1_000, b'\n{"text": "b"}\n', "rows", 150),
        ("-", b'{"text": "a"}\n', b"x" * 1_000, b'\n{"text": "b"}\n', "texts", 150),
        ("a.csv.gz", b"text\na\n", b"x" * 1_000, b"\nb\n", "texts", 150),
        ("a.csv.gz", b'text\na\n"', b"x" * 999 + b"\n", b'"\nb\n', "texts", 450),
    ],
)
def test_memory_does_not_grow_with_a_line(
    tmp_path: Path, name: str, start: bytes, repeated: bytes, end: bytes, how: str, most_mib: int
) -> None:
    file = tmp_path / ("stdin" if name == "-" else name)
    with gzip.open(file, "wb", compresslevel=1) if name != "-" else file.open("wb") as packed:
        packed.write(start)
        for _ in range(100):
            packed.write(repeated * 1_000)
        packed.write(end)
    with file.open("rb") as stdin:
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, "-" if name == "-" else str(file), how],
            stdin=stdin,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    grown, rows, bad = done.stdout.splitlines()
    assert int(grown) < most_mib, done.stdout[:500]
    assert rows.startswith("['a'"), rows[:200]
    assert "longer than 64 MiB" in bad
    # what was taken for rows were parts of a cell, as its end showed
    assert ("begins or ends a cell" in done.stderr) == (end[:1] == b'"')
