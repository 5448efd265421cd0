"""Files behind URLs: what may be read, and what becomes of what is written."""

from __future__ import annotations

import gzip
import importlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import BUCKET, SECRET, S3Server
from werkzeug.wrappers import Request

from labelmill.contracts.errors import InvalidInput, LabelmillError, StorageRefused, StorageUnavailable
from labelmill.core.chunks.codec import QuotedInput
from labelmill.core.readers import detect_sources, inputs_of, read_rows, read_text_blocks
from labelmill.core.settings import load_settings
from labelmill.core.storage.opening import remote_files
from labelmill.core.storage.remote import RemoteFile, RemoteFiles, RemoteUrl
from labelmill.services.results.export import check_output, write_parquet_results, write_results
from labelmill.services.results.formats import output_of
from labelmill.services.results.lines import ChunkResults
from labelmill.services.results.tables import ResultTable

LINES = b"".join(b'{"text": "text %d"}\n' % number for number in range(1000))


@pytest.fixture
def remote(s3_server: S3Server) -> RemoteFiles:
    return RemoteFiles(s3_server.options())


def texts(source: str, remote: RemoteFiles) -> list[str]:
    blocks = read_text_blocks(detect_sources(inputs_of(source, remote)), "text", None, on_bad_row=print)
    return [text for block in blocks for text in block.texts]


def test_a_file_in_s3_is_read_as_one_on_a_disk(s3_server: S3Server, remote: RemoteFiles) -> None:
    expected = [f"text {number}" for number in range(1000)]
    s3_server.put("in/a.jsonl", LINES)
    s3_server.put("in/b.csv.gz", gzip.compress(b"text\n" + b"".join(b"text %d\n" % number for number in range(1000))))
    s3_server.put("in/[1] ü?.jsonl", LINES)
    for name in ("a.jsonl", "b.csv.gz", "[1] ü?.jsonl"):
        assert texts(f"s3://{BUCKET}/in/{name}", remote) == expected


def test_parquet_in_s3_is_read_in_parts(s3_server: S3Server, remote: RemoteFiles) -> None:
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    file = io.BytesIO()
    parquet.write_table(arrow.table({"text": ["a", "b"], "other": [1, 2]}), file)
    s3_server.put("a.parquet", file.getvalue())
    source = f"s3://{BUCKET}/a.parquet"
    assert texts(source, remote) == ["a", "b"]
    rows = read_rows(detect_sources(inputs_of(source, remote)), columns=["other"], on_bad_row=print)
    assert [row.values for row in rows] == [{"other": 1}, {"other": 2}]


def test_a_pattern_names_the_objects_that_match_in_order(s3_server: S3Server, remote: RemoteFiles) -> None:
    for name in ("in/2.jsonl", "in/1.jsonl", "in/deep/3.jsonl", "in/4.csv", "other/5.jsonl"):
        s3_server.put(name, b'{"text": "%b"}\n' % name.encode())
    assert texts(f"s3://{BUCKET}/in/*.jsonl", remote) == ["in/1.jsonl", "in/2.jsonl"]
    assert texts(f"s3://{BUCKET}/in/**/*.jsonl", remote) == ["in/1.jsonl", "in/2.jsonl", "in/deep/3.jsonl"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("s3://bucket/gone.jsonl", "there is no file s3://bucket/gone.jsonl"),
        ("s3://bucket/gone*.jsonl", r"no file matches s3://bucket/gone\*.jsonl"),
        ("s3://bucket/in", "s3://bucket/in is a folder; name a file, or a pattern such as s3://bucket/in/"),
        ("s3://", "this address of S3 cannot be used: it names no bucket"),
        ("s3://key:secret@bucket/x", "holds a user name or a password"),
        ("https://user:secret@example.com/x", "https:// is not opened here"),
        ("file:///etc/passwd", "file:// is not opened here: name a path or s3://"),
        ("memory://a", "memory:// is not opened here"),
        ("zip://a.csv::s3://bucket/a.zip", "zip:// is not opened here"),
        ("s3://bucket/a.zip::file:///etc/passwd", "names a file in a file by ::"),
    ],
)
def test_what_is_not_a_file_that_may_be_read_is_refused(
    s3_server: S3Server, remote: RemoteFiles, source: str, words: str
) -> None:
    s3_server.put("in/a.jsonl", LINES)
    with pytest.raises(InvalidInput, match=words) as refused:
        inputs_of(source, remote)
    assert "secret" not in refused.value.message
    assert refused.value.field == "source"


def test_a_missing_bucket_is_told_from_a_missing_file(remote: RemoteFiles) -> None:
    for source in ("s3://nobodys/a.jsonl", "s3://nobodys/*.jsonl"):
        with pytest.raises(StorageRefused, match="there is no bucket s3://nobodys"):
            inputs_of(source, remote)


def test_the_operator_allows_other_schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = importlib.import_module("fsspec").filesystem("memory")
    memory.pipe("/in/a.jsonl", b'{"text": "kept in memory"}\n')
    monkeypatch.setenv("LABELMILL_SOURCE_SCHEMES", " gs, Memory:// ")
    settings = load_settings()
    assert settings.allowed_schemes == {"gs", "memory"}
    assert texts("memory://in/*.jsonl", remote_files(settings)) == ["kept in memory"]
    memory.rm("/in", recursive=True)
    monkeypatch.setenv("LABELMILL_SOURCE_SCHEMES", "nonsense")
    with pytest.raises(InvalidInput, match="nonsense:// is a scheme that fsspec does not know"):
        inputs_of("nonsense://x", remote_files(load_settings()))
    monkeypatch.setenv("LABELMILL_SOURCE_SCHEMES", "a b")
    with pytest.raises(InvalidInput, match="setting LABELMILL_SOURCE_SCHEMES: it is a list of schemes"):
        load_settings()


def test_no_more_of_a_source_is_fetched_than_is_read(s3_server: S3Server, remote: RemoteFiles) -> None:
    s3_server.put("large.jsonl", b'{"text": "x"}\n' + b'{"text": "' + os.urandom(24 << 20).hex().encode() + b'"}\n')
    s3_server.requests.clear()
    blocks = read_text_blocks(
        detect_sources(inputs_of(f"s3://{BUCKET}/large.jsonl", remote)), "text", None, on_bad_row=print
    )
    assert next(blocks).texts[0] == "x"
    assert sum(line.startswith("GET /bucket/large") for line in s3_server.requests) <= 4  # 8 MB each


ROWS = [b'{"row":0,"id":"0","text":"t","predictions":{"intent":{"label":"a","score":1.0}},"error":null}\n']


def written(s3_server: S3Server, name: str) -> bytes:
    output = output_of(f"s3://{BUCKET}/out/{name}")
    assert write_results(ROWS, ["intent"], output, remote=RemoteFiles(s3_server.options())) == 1
    return s3_server.get(f"out/{name}")


def test_results_are_written_to_s3_in_every_format(s3_server: S3Server) -> None:
    assert written(s3_server, "a.jsonl") == ROWS[0]
    assert written(s3_server, "a.csv").startswith(b"row,id,text,intent")
    output = output_of(f"s3://{BUCKET}/out/a.parquet")
    chunk = ChunkResults(0, QuotedInput([b"t"], None, has_repeats=False), [], {0: ("empty_text", "")})
    table = ResultTable([], (), with_scores=True)
    assert write_parquet_results([chunk], table, output, remote=RemoteFiles(s3_server.options())) == 1
    parquet = importlib.import_module("pyarrow.parquet")
    assert parquet.read_table(io.BytesIO(s3_server.get("out/a.parquet"))).num_rows == 1
    assert s3_server.uploads() == []


def test_results_that_break_off_leave_what_was_there(s3_server: S3Server, remote: RemoteFiles) -> None:
    s3_server.put("out.jsonl", b"before")

    def rows() -> Iterator[bytes]:
        yield from ROWS * 300_000  # more than one part
        raise InvalidInput("it breaks off")

    with pytest.raises(InvalidInput, match="breaks off"):
        write_results(rows(), ["intent"], RemoteUrl(f"s3://{BUCKET}/out.jsonl"), remote=remote)
    assert s3_server.get("out.jsonl") == b"before"
    assert s3_server.uploads() == []


@pytest.mark.parametrize(
    ("output", "kind", "words"),
    [
        ("s3://nobodys/a.jsonl", StorageRefused, "there is no bucket"),
        ("s3://bucket/a.txt", InvalidInput, "results are written as .jsonl, .csv, .parquet"),
        ("s3://bucket", InvalidInput, "names no file"),
        ("s3://bucket.csv", InvalidInput, "names no file"),
        ("s3:///a.csv", InvalidInput, "names no file"),
        ("s3://bucket/a.csv/", InvalidInput, "names no file"),
        ("s3://bucket//a.csv", InvalidInput, "names no file"),
        ("s3://bucket/x/../a.csv", InvalidInput, "names no file"),
        ("https://example.com/a.jsonl", InvalidInput, "results are written to a file or to s3://bucket/key"),
        ("s3://bucket/in.jsonl", InvalidInput, "is the source itself"),
        ("S3://bucket/in.jsonl", InvalidInput, "is the source itself"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_beforehand(
    s3_server: S3Server, remote: RemoteFiles, output: str, kind: type[InvalidInput | StorageRefused], words: str
) -> None:
    s3_server.put("in.jsonl", LINES)
    with pytest.raises(kind, match=words) as refused:
        check_output(output_of(output), inputs_of(f"s3://{BUCKET}/in.jsonl", remote), remote)
    assert (refused.value.exit_code, SECRET in refused.value.message) == (2, False)
    assert s3_server.keys() == ["in.jsonl"]
    assert s3_server.uploads() == []


@pytest.mark.parametrize("given", ["S3://bucket/in.jsonl", "s3://bucket//in.jsonl", "s3://bucket/./in.jsonl"])
def test_an_output_is_compared_by_bucket_and_key(remote: RemoteFiles, given: str) -> None:
    with pytest.raises(InvalidInput, match="is the source itself"):
        check_output(output_of("s3://bucket/in.jsonl"), [RemoteFile(remote, given)], remote)


def test_a_scheme_may_be_written_in_capitals(s3_server: S3Server, remote: RemoteFiles) -> None:
    s3_server.put("in.jsonl", LINES)
    assert len(texts(f"S3://{BUCKET}/in.jsonl", remote)) == 1000
    write_results(iter(ROWS), ["intent"], output_of(f"S3://{BUCKET}/out.jsonl"), remote=remote)
    assert s3_server.keys() == ["in.jsonl", "out.jsonl"]


def test_a_file_on_this_machine_is_still_a_path(tmp_path: Path) -> None:
    assert output_of(str(tmp_path / "a.csv")) == tmp_path / "a.csv"


@pytest.mark.parametrize("fault", ["empty", "cut"])
def test_an_answer_that_ends_early_is_not_taken_for_the_end_of_the_file(
    s3_server: S3Server, remote: RemoteFiles, fault: str
) -> None:
    line = b'{"text": "%s"}\n' % (b"x" * 1011)
    assert len(line) == 1 << 10
    s3_server.put("large.jsonl", line * (20 << 10))  # it ends an answer of 8 MB between two lines
    s3_server.fault = lambda request: fault if _asks_from(request, 8 << 20) else None
    with pytest.raises(StorageUnavailable, match=r"s3://bucket/large.jsonl was cut short|does not answer as it should"):
        texts(f"s3://{BUCKET}/large.jsonl", remote)


def _asks_from(request: Request, start: int) -> bool:
    first = request.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
    return first.isdigit() and int(first) >= start


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (400, "IllegalLocationConstraintException", StorageRefused, "lies in another region .*: set AWS_REGION"),
        (400, "ExpiredToken", StorageRefused, "refuses the key in AWS_ACCESS_KEY_ID"),
        (403, "RequestTimeTooSkewed", StorageRefused, "refuses the time of this machine"),
        (403, "InvalidObjectState", StorageRefused, "is archived: restore it first"),
        (418, "", StorageUnavailable, "does not answer as it should: "),
    ],
)
def test_a_refusal_says_what_to_look_at(
    s3_server: S3Server, remote: RemoteFiles, status: int, code: str, kind: type[LabelmillError], words: str
) -> None:
    s3_server.fault = lambda _: (status, code)
    with pytest.raises(kind, match=words) as refused:
        check_output(output_of(f"s3://{BUCKET}/a.jsonl"), remote=remote)
    assert "None" not in refused.value.message


def test_a_refusal_without_words_says_what_may_be_wrong(s3_server: S3Server, remote: RemoteFiles) -> None:
    s3_server.fault = lambda _: (400, "")
    with pytest.raises(StorageRefused, match=r"refuses the request \(400\): the key's session may have expired"):
        inputs_of(f"s3://{BUCKET}/a.jsonl", remote)


def test_a_version_of_an_object_is_neither_read_nor_overwritten(s3_server: S3Server, remote: RemoteFiles) -> None:
    s3_server.put("in.jsonl", LINES)
    url = f"s3://{BUCKET}/in.jsonl?versionId=x.jsonl"
    with pytest.raises(InvalidInput, match="names a version of an object"):
        inputs_of(url, remote)
    with pytest.raises(InvalidInput, match="names a version of an object"):
        check_output(output_of(url), inputs_of(f"s3://{BUCKET}/in.jsonl", remote), remote)
    assert s3_server.get("in.jsonl") == LINES


def test_a_pattern_lists_what_can_match_and_not_the_whole_bucket(s3_server: S3Server, remote: RemoteFiles) -> None:
    for name in ("in/a/1.jsonl", "in/a/2.csv", "in/b/1.jsonl", "in/b/deep/1.jsonl", "in/0.jsonl", "in/"):
        s3_server.put(name, b"")
    s3_server.requests.clear()
    assert [str(file) for file in inputs_of(f"s3://{BUCKET}/in/[ab]*/1*.jsonl", remote)] == [
        f"s3://{BUCKET}/in/{name}" for name in ("a/1.jsonl", "b/1.jsonl")
    ]
    listings = [line for line in s3_server.requests if "list-type=2" in line and "max-keys" not in line]
    assert len(listings) == 3
    assert all("delimiter=%2F" in line or "delimiter=/" in line for line in listings)
    assert [str(file) for file in inputs_of(f"s3://{BUCKET}/*/*", remote)] == [f"s3://{BUCKET}/in/0.jsonl"]
    with pytest.raises(InvalidInput, match=r"\*\* stands for folders"):
        inputs_of(f"s3://{BUCKET}/in/**.jsonl", remote)


def test_the_name_of_an_object_may_hold_a_question_mark(remote: RemoteFiles) -> None:
    assert RemoteFile(remote, "s3://bucket/in/why?.csv").name == "why?.csv"
    assert RemoteFile(remote, "https://example.com/a.csv?token=x").name == "a.csv"
