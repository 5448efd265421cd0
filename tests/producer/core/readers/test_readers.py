"""Reading rows: every format, every way a file can be wrong."""

from __future__ import annotations

import gc
import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from labelmill.contracts.errors import InvalidInput
from labelmill.core.readers import (
    BadRow,
    detect_sources,
    expand_source,
    first_columns,
    read_rows,
    read_text_blocks,
)


def refuse(bad: BadRow) -> None:
    raise AssertionError(str(bad))


def write(path: Path, content: bytes | str) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def parquet_file(path: Path, columns: dict[str, list[object]]) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), path)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.ndjson", "a.unknown", "a"])
def test_json_lines_are_read_with_their_line_numbers(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, '\ufeff{"t": "ä"}\r\n\r\n{"t": "b"}')
    assert [(row.line, row.values) for row in read_rows([file], columns=["t"], on_bad_row=refuse)] == [
        (1, {"t": "ä"}),
        (3, {"t": "b"}),
    ]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_csv_cells_may_hold_line_breaks_quotes_and_300_000_characters(tmp_path: Path, name: str) -> None:
    long = "x" * 300_000
    file = write(tmp_path / name, f'\ufefft,n\r\n"one\r\n""two"", three",1\r\n{long},2\r\n')
    rows = list(read_rows([file], columns=["t"], on_bad_row=refuse))
    assert [(row.line, row.values["t"]) for row in rows] == [(2, 'one\r\n"two", three'), (4, long)]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_csv_with_semicolons_or_tabs_is_understood(tmp_path: Path, delimiter: str) -> None:
    file = write(tmp_path / "a.csv", f"t{delimiter}n\na, b{delimiter}1\n")
    assert [row.values for row in read_rows([file], columns=None, on_bad_row=refuse)] == [{"t": "a, b", "n": "1"}]


def test_parquet_is_read_in_batches(tmp_path: Path) -> None:
    file = parquet_file(tmp_path / "a.parquet", {"t": [f"t{n}" for n in range(10_000)], "n": list(range(10_000))})
    rows = list(read_rows([file], columns=["t", "n"], on_bad_row=refuse))
    assert [row.line for row in rows] == list(range(1, 10_001))
    assert rows[9_999].values == {"t": "t9999", "n": 9_999}
    assert first_columns(detect_sources([file])[0]) == ["t", "n"]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.parquet", b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidInput, match=r'pip install "labelmill\[parquet\]"'):
        list(read_rows([file], columns=["t"], on_bad_row=refuse))


def test_broken_lines_are_reported_with_file_line_and_reason(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", b'{"t": "a"}\n{"t": \n[1]\n{"t": "\xff"}\n{"t": "\\ud800"}\n{"t": "b"}\n')
    bad: list[BadRow] = []
    rows = list(read_rows([file], columns=["t"], on_bad_row=bad.append))
    assert [row.values["t"] for row in rows] == ["a", "b"]
    assert [(one.file, one.line) for one in bad] == [("a.jsonl", n) for n in (2, 3, 4, 5)]
    assert ["JSON" in bad[0].reason, "a list" in bad[1].reason, "UTF-8" in bad[2].reason] == [True] * 3


def test_broken_csv_rows_are_reported_and_the_others_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", b't,n\na,1\nb\n\xff,3\n"d"x,4\ne,5\n')
    bad: list[BadRow] = []
    rows = list(read_rows([file], columns=["t", "n"], on_bad_row=bad.append))
    assert [row.values["n"] for row in rows] == ["1", "5"]
    assert [one.line for one in bad] == [3, 4, 5]


def test_who_gives_up_amid_a_csv_file_hears_of_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.csv", "t\na,b\nc\n")
    noise: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", noise.append)
    with pytest.raises(AssertionError) as refused:
        list(read_rows([file], columns=["t"], on_bad_row=refuse))
    del refused  # what was being read goes with it
    gc.collect()
    assert noise == []


def test_a_quote_that_is_never_closed_does_not_swallow_rows_silently(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", 't,n\n"a,1\nb,2\n')
    bad: list[BadRow] = []
    assert [row.values["t"] for row in read_rows([file], columns=["t"], on_bad_row=bad.append)] == ["b"]
    assert [one.line for one in bad] == [2]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.unknown", "a.jsonl.gz"])
@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str, content: str) -> None:
    file = write(tmp_path / name, content)
    with pytest.raises(InvalidInput, match=r"holds no rows|is empty|is in no format"):
        list(read_rows([file], columns=["t"], on_bad_row=refuse))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_wrong_column_names_the_columns_there_are(tmp_path: Path, name: str) -> None:
    if name == "a.parquet":
        file = parquet_file(tmp_path / name, {"t": ["a"], "n": ["b"]})
    else:
        file = write(tmp_path / name, {"a.jsonl": '{"t": "a", "n": "b"}', "a.csv": "t,n\na,b\n"}[name])
    for read in (
        read_rows([file], columns=["x"], on_bad_row=refuse),
        read_text_blocks([file], "x", None, on_bad_row=refuse),
    ):
        with pytest.raises(InvalidInput, match=r"a\.\w+ has no column 'x'; it has 't', 'n'"):
            list(read)


def test_a_json_array_is_refused_with_a_hint(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '[\n{"t": "a"}\n]')
    with pytest.raises(InvalidInput, match="JSON array"):
        list(read_rows([file], columns=["t"], on_bad_row=refuse))


@pytest.mark.parametrize(("name", "content"), [("a.csv", "t,n\nä,1\n"), ("a.jsonl", '{"t": "ä"}\n')])
def test_a_utf_16_file_is_known_by_its_mark(tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / name
    file.write_text(content, encoding="utf-16")
    (block,) = read_text_blocks([file], "t", None, on_bad_row=refuse)
    assert block.texts == ["ä"]


def test_a_cut_gzip_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"t": "a"}\n' * 1000)[:-12])
    with pytest.raises(InvalidInput, match=r"a\.jsonl\.gz is damaged"):
        list(read_rows([file], columns=["t"], on_bad_row=refuse))


def test_sources_expand_sorted_and_a_missing_one_is_one_sentence(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.csv", "odd[1].csv"):
        write(tmp_path / name, "{}")
    assert [file.name for file in expand_source(f"{tmp_path}/*.jsonl")] == ["a.jsonl", "b.jsonl"]
    assert [file.name for file in expand_source(f"{tmp_path}/odd[1].csv")] == ["odd[1].csv"]
    for wrong, sentence in (("x.csv", "there is no file"), ("x*", "no file matches"), ("", "is a folder")):
        with pytest.raises(InvalidInput, match=sentence):
            expand_source(f"{tmp_path}/{wrong}")


def test_a_file_of_no_known_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="in no format known here"):
        detect_sources(expand_source(str(write(tmp_path / "a.doc", "hello"))))


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_text_blocks_hold_ids_and_texts_as_strings_in_order(tmp_path: Path, name: str) -> None:
    if name == "a.parquet":
        file = parquet_file(tmp_path / name, {"t": ["a", None, "c"], "id": [1, 2, None]})
    else:
        file = write(tmp_path / name, '{"t": "a", "id": 1}\n{"t": null, "id": 2}\n{"t": "c"}\n')
    (block,) = read_text_blocks([file], "t", "id", on_bad_row=refuse)
    assert (block.texts, block.ids) == (["a", "", "c"], ["1", "2", None])


def test_text_blocks_read_a_stream_and_report_what_is_no_text() -> None:
    stream = io.BytesIO(b'{"t": "a"}\n{"t": ["b"]}\n{"t": 3}\n"x"\n{}\n{')
    bad: list[BadRow] = []
    (block,) = read_text_blocks([stream], "t", None, on_bad_row=bad.append)
    assert (block.texts, block.ids) == (["a", "3", ""], None)
    assert [(one.file, one.line) for one in bad] == [("<stdin>", 2), ("<stdin>", 4), ("<stdin>", 6)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"t": "b", "id": 7}', ("b", "7")),
        ('{"id": null, "t": "b"}', ("b", None)),
        ('{"t": "b", "id": ""}', ("b", None)),
        ('{"t": "b", "id": 36893488147419103232}', ("b", "36893488147419103232")),
        ('{"t": "b", "id": 1.5}', ("b", "1.5")),
        ('{"t": 3, "id": 36893488147419103233}', ("3", "36893488147419103233")),
        ('{"t": "b", "id": true}', ("b", "true")),
        ('{"t": "b", "t": "c", "id": "x", "other": {"t": [1]}}', ("c", "x")),
        ('{"t": "\\ud83d\\ude00", "id": "\u00e9"}', ("\U0001f600", "\u00e9")),
    ],
)
def test_an_id_of_any_plain_kind_is_text_among_others(tmp_path: Path, line: str, expected: tuple[str, str]) -> None:
    file = write(tmp_path / "a.jsonl", f'{{"t": "a", "id": "1"}}\n{line}\n')
    (block,) = read_text_blocks([file], "t", "id", on_bad_row=refuse)
    assert block.ids is not None
    assert (block.texts[1], block.ids[1]) == expected


def test_what_becomes_of_a_line_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    plain = ['{"t": "a", "id": 36893488147419103232}', '{"t": "b", "id": "x", "other": 1e999}']
    found = []
    for neighbour in ('{"t": "z", "id": "1"}', '{"t": "z", "id": 1.5}', "", "{"):
        file = write(tmp_path / "a.jsonl", "\n".join([*plain, neighbour]))
        blocks = list(read_text_blocks([file], "t", "id", on_bad_row=lambda _: None))
        found.append((blocks[0].texts[:2], (blocks[0].ids or [])[:2]))
    assert found == [(["a", "b"], ["36893488147419103232", "x"])] * len(found)


def test_one_column_may_be_both_text_and_id(tmp_path: Path) -> None:
    (block,) = read_text_blocks([write(tmp_path / "a.jsonl", '{"t": "a"}')], "t", "t", on_bad_row=refuse)
    assert (block.texts, block.ids) == (["a"], ["a"])


@pytest.mark.parametrize(
    ("lines", "texts", "bad_lines"),
    [
        ('{"t": "a", "more": [{"t": "b"}\n{"t": "c"}]}\n{"t": "d"}\n', ["d"], [1, 2]),
        ('{"t": "a"}\n{"t":\n"b"}\n', ["a"], [2, 3]),
        ('{"t":\n"a"}{"t": "b"}\n{"t": "z"}\n', ["z"], [1, 2]),
        ('{"t": "a"} {"t": "b"}\n\n{"t": "c"}', ["c"], [1]),
        ('{"t": "a"} {"t": "b"}', [], [1]),
        ('\n{"t": "a"}{"t": "b"}', [], [2]),
        ('{"more":\n{"n": 1}, "t": "a"}{"t": "b"}\n{"t": "z"}\n', ["z"], [1, 2]),
        ('{"t": "a", "more": {"n": 1}\n}{"t": "b"}\n{"t": "z"}\n', ["z"], [1, 2]),
        ('{"t": "a"}\r\n{"t": "b"}\r\n{"t": "c"}', ["a", "b", "c"], []),
        ('\n{"t": "a"} \n \n\t{"t": "}\\n{"}\n', ["a", "}\n{"], []),
    ],
)
def test_a_line_is_a_row_and_a_row_is_a_line(
    tmp_path: Path, lines: str, texts: list[str], bad_lines: list[int]
) -> None:
    bad: list[BadRow] = []
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines.encode())
    blocks = read_text_blocks([path], "t", None, on_bad_row=bad.append)
    found = [text for block in blocks for text in block.texts]
    assert (found, [one.line for one in bad]) == (texts, bad_lines)


def test_several_files_are_one_stream_and_an_empty_one_among_them_does_no_harm(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.jsonl", '{"t": "a"}'),
        write(tmp_path / "b.jsonl", ""),
        write(tmp_path / "c.csv", "t\nc\n"),
    ]
    assert [text for block in read_text_blocks(files, "t", None, on_bad_row=refuse) for text in block.texts] == [
        "a",
        "c",
    ]


@pytest.mark.parametrize("column", ['my "text"', "back\\slash", "tab\t", "dots...", "texte é"])
def test_a_column_may_have_any_name(tmp_path: Path, column: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({column: f"text {number}"}) + "\n" for number in range(3)))
    (block,) = read_text_blocks([path], column, None, on_bad_row=refuse)
    assert block.texts == ["text 0", "text 1", "text 2"]
