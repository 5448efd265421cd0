"""Where rows come from, and how their format is known: files, pipes, standard input; packed or not."""

from __future__ import annotations

import gzip
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.specs import FileFormat, ReadOptions
from labelmill.core.readers import (
    BadRow,
    Input,
    detect_sources,
    expand_source,
    first_columns,
    formats_of,
    known_sources,
    read_options,
    read_rows,
    read_text_blocks,
)

CSV = "id;text\r\n1;größer\r\n2;b\r\n".encode()
JSONL = '{"id": 1, "text": "größer"}\n{"id": 2, "text": "b"}\n'.encode()


def parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"id": [1, 2], "text": ["größer", "b"], "x": ["", ""]}), stream)
    return stream.getvalue()


class OneWay(io.RawIOBase):
    """A pipe: bytes come in small parts, once."""

    def __init__(self, content: bytes) -> None:
        self._rest = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._rest.read(min(len(buffer), 7))
        buffer[: len(part)] = part
        return len(part)


@contextmanager
def piped(content: bytes) -> Iterator[str]:
    """The name of a pipe as a shell's `<(…)` gives it."""
    end, other_end = os.pipe()

    def write() -> None:
        with os.fdopen(other_end, "wb") as stream:
            stream.write(content)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield f"/dev/fd/{end}"
    finally:
        os.close(end)
        thread.join(10)


def texts(inputs: list[Input]) -> list[tuple[str, str | None]]:
    blocks = list(read_text_blocks(inputs, "text", "id", on_bad_row=lambda bad: pytest.fail(str(bad))))
    return [(text, one) for block in blocks for text, one in zip(block.texts, block.ids or (), strict=True)]


@pytest.mark.parametrize("content", [CSV, JSONL, parquet()], ids=["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("way", ["stdin", "pipe", "file"])
def test_each_format_is_read_from_wherever_it_comes(tmp_path: Path, content: bytes, way: str, *, packed: bool) -> None:
    content = gzip.compress(content) if packed else content
    expected = [("größer", "1"), ("b", "2")]
    if way == "stdin":
        assert texts([io.BufferedReader(OneWay(content))]) == expected
    elif way == "pipe":
        with piped(content) as name:
            assert texts(list(expand_source(name))) == expected
    else:
        start = gzip.decompress(content)[:1] if packed else content[:1]
        file = tmp_path / {b"P": "a.parquet", b"{": "a.jsonl", b"i": "a.csv"}[start]
        file.write_bytes(content)
        assert texts([file]) == expected


def test_a_large_file_on_stdin_is_read_whole() -> None:
    lines = b"".join(b'{"id": %d, "text": "text %d"}\n' % (n, n) for n in range(100_000))
    some = lines[: lines.index(b"\n", 900_000) + 1]
    assert texts([io.BufferedReader(OneWay(some))]) == texts([io.BytesIO(some)])
    assert len(texts([io.BytesIO(gzip.compress(lines))])) == 100_000


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "cp1252", "utf-16-be"])
@pytest.mark.parametrize("content", [CSV, JSONL], ids=["csv", "jsonl"])
def test_text_of_other_encodings_is_read(tmp_path: Path, encoding: str, content: bytes) -> None:
    file = tmp_path / ("a.jsonl.gz" if content is JSONL else "a.csv.gz")
    file.write_bytes(gzip.compress(content.decode().encode(encoding)))
    option = encoding if encoding in ("cp1252", "utf-16-be") else None
    sources = detect_sources([file], ReadOptions(encoding=option), ["text"])
    (block,) = read_text_blocks(sources, "text", None, on_bad_row=lambda bad: pytest.fail(str(bad)))
    assert block.texts == ["größer", "b"]


def test_bytes_that_an_encoding_does_not_have_make_a_bad_row() -> None:
    bad: list[BadRow] = []
    (source,) = detect_sources([io.BytesIO(b"text,n\n\x81,1\nb,2\n")], ReadOptions(encoding="cp1252"))
    (block,) = read_text_blocks([source], "text", None, on_bad_row=bad.append)
    assert (block.texts, [(one.line, one.reason) for one in bad]) == (["b"], [(2, "not cp1252")])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.json", '[\n {"text": "a"}\n]', "a.json holds a JSON array; write one object on each line"),
        ("a.jsonl", '[{"text": "a"}]', "holds a JSON array; write one object on each line"),
        ("a.json", '{\n "text": "a"\n}\n{\n "text": "b"\n}\n', "objects of several lines each; write one object on"),
        ("a.jsonl", '{"text": "a",\n "n": {\n  "m": 1}}\n', "holds objects of several lines each; write one object on"),
        ("a.csv", "text,n\na,b\n".encode("utf-16-le").decode("latin-1"), "say encoding=utf-16-le"),
        ("a.csv", "text,text\na,b\n", "a.csv has 2 columns named 'text': rename all but one"),
        ("a.csv", 'text,"n\na,b\n', "the header line of a.csv cannot be read: a quote is opened and not closed"),
    ],
)
def test_what_a_whole_file_has_wrong_is_said_with_the_remedy(
    tmp_path: Path, name: str, content: str, sentence: str
) -> None:
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(InvalidInput, match=sentence):
        list(read_text_blocks([tmp_path / name], "text", None, on_bad_row=lambda _: None))


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_constant_that_is_no_json_is_named(constant: str) -> None:
    bad: list[BadRow] = []
    stream = io.BytesIO(b'{"text": "a"}\n{"text": "b", "n": %s}\n{"text": "NaN}\n' % constant.encode())
    list(read_text_blocks([stream], "text", None, on_bad_row=bad.append))
    assert bad[0].reason == f"broken JSON: {constant} is not a value of JSON; write null"
    assert "NaN" not in bad[1].reason


@pytest.mark.parametrize("how", ["texts", "rows", "columns"])
def test_the_columns_of_jsonl_are_those_of_its_first_thousand_rows(tmp_path: Path, how: str) -> None:
    def read(rows_without: int) -> object:
        file = tmp_path / f"{rows_without}.jsonl"
        file.write_text('{"other": 1}\n' * rows_without + '{"text": "a"}\n{"other": 2}\n')
        if how == "texts":
            return list(read_text_blocks([file], "text", None, on_bad_row=lambda _: None))
        if how == "rows":
            return list(read_rows([file], columns=["text"], on_bad_row=lambda _: None))
        columns = first_columns(detect_sources([file])[0])
        if "text" not in columns:
            raise InvalidInput("has no column 'text'")
        return columns

    assert read(999)
    with pytest.raises(InvalidInput, match="has no column 'text'"):
        read(1000)


def test_columns_of_one_name_in_parquet_are_refused_only_when_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    arrays = [pa.array(["a"]), pa.array(["x"]), pa.array(["y"])]
    pq.write_table(pa.Table.from_arrays(arrays, names=["text", "label", "label"]), file)
    (block,) = read_text_blocks([file], "text", None, on_bad_row=lambda _: None)
    assert block.texts == ["a"]
    assert [row.values for row in read_rows([file], columns=None, on_bad_row=lambda _: None)] == [{"text": "a"}]
    with pytest.raises(InvalidInput, match="has 2 columns named 'label'"):
        list(read_rows([file], columns=["text", "label"], on_bad_row=lambda _: None))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((None, ";;", None), "is not one character"),
        ((None, '"', None), "is not one character"),
        (("utf-99", None, None), "encoding='utf-99' is not known"),
        (("rot13", None, None), "is not known"),
        (("unicode_escape", None, None), "is not known"),
        ((None, None, "all"), "quoting is none or standard"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: tuple[str | None, ...], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        read_options(*options)


def test_options_that_have_no_meaning_for_a_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(JSONL)
    (tmp_path / "a.parquet").write_bytes(parquet())
    with pytest.raises(InvalidInput, match=r"delimiter is for CSV; a\.jsonl is JSONL"):
        detect_sources([tmp_path / "a.jsonl"], read_options(None, "tab", None))
    with pytest.raises(InvalidInput, match=r"encoding is for CSV and JSONL; a\.parquet is Parquet"):
        detect_sources([tmp_path / "a.parquet"], read_options("cp1252", None, None))


def test_formats_are_recorded_once_where_they_are_alike_and_hold_for_copies(tmp_path: Path) -> None:
    for name, content in (("a.csv", CSV), ("b.csv", CSV), ("c.csv", CSV.replace(b";", b"|"))):
        (tmp_path / name).write_bytes(content)
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    alike = formats_of(detect_sources(files, columns=["text"]))
    assert alike == (FileFormat(kind="csv", delimiter=";"),)
    files.append(tmp_path / "c.csv")
    formats = formats_of(detect_sources(files, columns=["text"]))
    assert [one.delimiter for one in formats] == [";", ";", "|"]
    copies = [file.rename(file.with_suffix("")) for file in files]
    assert texts(list(known_sources(copies, formats, ReadOptions()))) == [("größer", "1"), ("b", "2")] * 3  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="there are 2 files where there were 3"):
        known_sources(copies[:2], formats, ReadOptions())
