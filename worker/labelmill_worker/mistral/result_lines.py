"""From the bytes of a batch job's output or error file to its lines. Pure: nothing that a file holds raises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from labelmill.contracts.storable_text import storable
from labelmill_worker.mistral.http_errors import MAX_WORDS, remote_words, sentence_of, without_secrets
from labelmill_worker.ports.batch_jobs import ResultLine

MAX_LINE_BYTES = 64 << 20  #: A longer line is not kept: some thousand embeddings take a third of it.
_MAX_CUSTOM_ID = 200  #: Characters; ours are shorter.
_STATUS_FIELDS = ("status_code", "raw_status_code", "status")  #: Where an error object may hold its HTTP status.


def lines_of(parts: Iterable[bytes], max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[bytes | None]:
    """Cut a stream of bytes at its line breaks; empty lines are left out. None: a line that is too long."""
    begun = bytearray()
    is_too_long = False
    for part in parts:
        *ended, rest = part.split(b"\n")
        for piece in ended:
            if is_too_long or len(begun) + len(piece) > max_line_bytes:
                yield None
            elif line := (bytes(begun) + piece).strip():
                yield line
            begun.clear()
            is_too_long = False
        if len(begun) + len(rest) > max_line_bytes:
            begun.clear()
            is_too_long = True
        elif not is_too_long:
            begun += rest
    if is_too_long:
        yield None
    elif line := bytes(begun).strip():
        yield line


def read_line(line: bytes | None, secrets: Sequence[str] = ()) -> ResultLine:
    """Read a line. One that is not a JSON object has neither an id nor a document."""
    if line is None:
        return ResultLine(None, None, None, "the line is too long")
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return ResultLine(None, None, None, "the line is not valid JSON")
    return read_entry(entry, secrets)


def read_entry(entry: Any, secrets: Sequence[str] = ()) -> ResultLine:
    """Read what a line holds. A call with an error, or with a status of 400 or more, has no document."""
    if not isinstance(entry, Mapping):
        return ResultLine(None, None, None, "the line is not a JSON object")
    custom_id = entry.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= _MAX_CUSTOM_ID:
        custom_id = None
    response = entry.get("response")
    response = response if isinstance(response, Mapping) else {}
    body, error = response.get("body"), entry.get("error")
    status = _status(response.get("status_code"))
    if status is None:
        status = _status_within(error) or _status_within(body)
    if not error and (status is None or status < 400) and isinstance(body, Mapping):
        return ResultLine(custom_id, status, body, None)
    return ResultLine(custom_id, status, None, _words(error or body, status, secrets))


def _status(value: Any) -> int | None:
    return value if type(value) is int and 100 <= value <= 599 else None


def _status_within(error: Any) -> int | None:
    """The status that an error object names: 400 or more."""
    if not isinstance(error, Mapping):
        return None
    named = (_status(error.get(field)) for field in _STATUS_FIELDS)
    return next((status for status in named if status is not None and status >= 400), None)


def _words(said: Any, status: int | None, secrets: Sequence[str]) -> str:
    # secrets go before the words are cut, so that no part of one is left
    if isinstance(said, str):
        words = remote_words(without_secrets(said, secrets))
    else:
        words = without_secrets(sentence_of(said), secrets)[:MAX_WORDS]
    return storable(words) or (f"no reason given (status {status})" if status else "no reply and no reason given")
