"""Lines of a batch job's files: whatever they hold, each is read as what it says."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some

from labelmill_worker.mistral.result_lines import lines_of, read_entry, read_line
from labelmill_worker.ports.batch_jobs import ResultLine


@given(
    lines=some.lists(some.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=6), data=some.data()
)
def test_lines_are_the_same_wherever_the_stream_is_cut(lines: list[bytes], data: some.DataObject) -> None:
    content = b"\n".join(lines)
    cuts = sorted(data.draw(some.lists(some.integers(0, len(content)), max_size=6)))
    parts = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    assert list(lines_of(parts)) == [line.strip() for line in lines if line.strip()]


def test_a_line_that_is_too_long_costs_no_memory_and_no_other_line() -> None:
    parts = [b"first\n" + b"x" * 6, b"x" * 6, b"x\nsecond\n", b"y" * 11 + b"\nlast"]
    assert list(lines_of(parts, max_line_bytes=10)) == [b"first", None, b"second", None, b"last"]
    assert read_line(None) == ResultLine(None, None, None, "the line is too long")


def test_an_answered_call_has_its_document() -> None:
    body = {"results": [{"intent": {"scores": {"a": 1.0}}}]}
    for response in ({"status_code": 200, "body": body}, {"body": body}):
        line = read_entry({"id": "x", "custom_id": "7", "response": response, "error": None})
        assert (line.custom_id, line.document, line.error) == ("7", body, None)


@pytest.mark.parametrize(
    ("entry", "status", "error"),
    [
        ({"response": {"status_code": 429, "body": None}, "error": "rate limited"}, 429, "rate limited"),
        ({"response": {"status_code": 500}, "error": {"message": "inner"}}, 500, "inner"),
        ({"response": {"status_code": 422, "body": {"detail": [{"loc": ["input"], "msg": "bad"}]}}}, 422, "input: bad"),
        ({"response": None, "error": {"raw_status_code": 400, "message": "too long"}}, 400, "too long"),
        ({"response": {"body": {"status_code": 503, "message": "away"}}, "error": None}, 503, "away"),
        ({"response": {"status_code": 200, "body": None}, "error": None}, 200, "no reason given (status 200)"),
        ({"response": {"status_code": 200, "body": [1]}}, 200, "no reason given (status 200)"),
        ({"error": "with my-key in it"}, None, "with [secret] in it"),
        ({}, None, "no reply and no reason given"),
    ],
)
def test_a_call_without_an_answer_says_why(entry: dict[str, Any], status: int | None, error: str) -> None:
    line = read_line(orjson.dumps({"custom_id": "7"} | entry), ["my-key"])
    assert line == ResultLine("7", status, None, error)


@pytest.mark.parametrize("custom_id", [None, 7, "", ["7"], "x" * 300])
def test_an_id_that_is_none_of_ours_is_none(custom_id: Any) -> None:
    assert read_entry({"custom_id": custom_id, "response": {"status_code": 200, "body": {}}}).custom_id is None


@pytest.mark.parametrize("line", [b"{", b"[1]", b"null", b"\xff", b'"text"', b'{"a": NaN}'])
def test_a_line_that_is_no_object_says_so(line: bytes) -> None:
    read = read_line(line)
    assert (read.custom_id, read.status, read.document) == (None, None, None)
    assert read.error is not None
    assert read.error.startswith("the line is not")


def _nested(depth: int) -> Any:
    said: Any = "deep"
    for _ in range(depth):
        said = {"message": said}
    return said


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (_nested(600), "no reason given (status 500)"),
        ({"message": "too many", "count": 2**70}, "too many"),
        ({"message": "x" * 495 + "my-key"}, "x" * 495 + "[secr"),
    ],
    ids=["nested deeply", "a number of more than 64 bits", "a key where the words are cut"],
)
def test_what_an_inline_result_says_of_its_error_is_read_whatever_it_holds(error: Any, words: str) -> None:
    entry = {"custom_id": "7", "response": {"status_code": 500}, "error": error}
    assert read_entry(entry, ["my-key"]) == ResultLine("7", 500, None, words)


@given(
    some.recursive(
        some.none()
        | some.booleans()
        | some.integers(-(2**70), 2**70)
        | some.floats(allow_nan=False)
        | some.text(max_size=5),
        lambda inner: (
            some.lists(inner, max_size=3)
            | some.dictionaries(some.sampled_from(["custom_id", "response", "error", "status_code", "body"]), inner)
        ),
    )
)
def test_no_entry_raises(entry: Any) -> None:
    line = read_entry(entry)
    assert (line.document is None) == (line.error is not None)
