"""The lines of a batch job's files: requests that come in, results that go out, and what faults make of these. Pure."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import orjson

from labelmill_ops.emulator.batch_requests import MAX_REQUESTS
from labelmill_ops.emulator.fault_kinds import Fault
from labelmill_ops.emulator.spoiling import spoil_content


class BadBatchFileError(Exception):
    """A file that cannot be run; the message says why."""


@dataclass(frozen=True)
class BatchLine:
    """A request of a job."""

    custom_id: str | None
    body: dict[str, Any]


@dataclass(frozen=True)
class BatchResult:
    """What became of a request: `payload` is the JSON of its answer, or of the refusal."""

    custom_id: str | None
    status: int
    payload: bytes

    @property
    def is_answer(self) -> bool:
        """Whether it belongs into the output file; else it belongs into the error file."""
        return self.status == 200


def read_requests(contents: list[bytes]) -> list[BatchLine]:
    """Read the input files of a job. Raises BadBatchFileError."""
    lines: list[BatchLine] = []
    for content in contents:
        for number, line in enumerate(content.splitlines(), start=1):
            if line.strip():
                lines.append(_read_request(line, number))
    check_requests(lines)
    return lines


def check_requests(lines: list[BatchLine]) -> None:
    """Raise BadBatchFileError for requests that cannot be one job."""
    if not lines:
        raise BadBatchFileError("the job holds no requests")
    if len(lines) > MAX_REQUESTS:
        message = f"the job holds {len(lines)} requests, more than {MAX_REQUESTS}"
        raise BadBatchFileError(message)
    named = [line.custom_id for line in lines if line.custom_id is not None]
    if len(set(named)) < len(named):
        raise BadBatchFileError("two requests of the job have the same custom_id")


def _read_request(line: bytes, number: int) -> BatchLine:
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        message = f"line {number} is not valid JSON"
        raise BadBatchFileError(message) from error
    if not isinstance(entry, dict) or not isinstance(entry.get("body"), dict):
        message = f"line {number} has no body"
        raise BadBatchFileError(message)
    custom_id = entry.get("custom_id")
    if not isinstance(custom_id, str | None):
        message = f"line {number} has a custom_id that is not a string"
        raise BadBatchFileError(message)
    return BatchLine(custom_id, entry["body"])


def result_lines(result: BatchResult, fault: Fault | None) -> list[bytes]:
    """The lines of a result: one, unless a fault drops or repeats it."""
    kind = fault.kind if fault else None
    if kind == "line-dropped":
        return []
    custom_id = None if kind == "line-anonymous" else result.custom_id
    payload = result.payload
    if fault is not None and result.is_answer and kind not in LINE_KINDS:
        payload = spoil_content(fault.kind, payload)
    line = b'{"id":%s,"custom_id":%s,"response":{"status_code":%d,"body":%s},"error":%s}' % (
        orjson.dumps(f"batch-{uuid.uuid4().hex[:12]}"),
        orjson.dumps(custom_id),
        result.status,
        payload if result.is_answer else b"null",
        b"null" if result.is_answer else _error(payload),
    )
    return [line, line] if kind == "line-repeated" else [line]


#: Faults of a line as a whole; others spoil the answer in it.
LINE_KINDS = frozenset({"line-dropped", "line-repeated", "line-anonymous", "line-failed", "line-refused"})


def _error(payload: bytes) -> bytes:
    """What a failed line says: a string, or an object as the endpoint would say it. Mistral's lines have both forms."""
    return payload if len(payload) % 2 else orjson.dumps(orjson.loads(payload).get("message") or "failed")
