"""From the SDK's answers, and the plain JSON of fine-tuning jobs, to the port's dataclasses. The SDK marks an absent
field with a falsy `Unset`, not None."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from labelmill.contracts.bounds import MAX_AMOUNT, MAX_NUMBER, fault_of_name
from labelmill.contracts.errors import MalformedAnswer
from labelmill.contracts.storable_text import storable
from labelmill_worker.mistral.http_errors import without_secrets
from labelmill_worker.ports.batch_jobs import RemoteBatch
from labelmill_worker.ports.control_plane import RemoteCheckpoint, RemoteEvent, RemoteFile, RemoteJob, RemoteModel

_MAX_TIMESTAMP = 253_402_300_799  #: The end of the year 9999.


def job_of(answer: Any) -> RemoteJob:
    """A fine-tuning job from a JSON document. Raises MalformedAnswer for one that holds none."""
    if not isinstance(answer, Mapping) or not answer.get("id") or "status" not in answer:
        raise MalformedAnswer("Mistral's answer holds no fine-tuning job")
    metadata = _mapping(answer.get("metadata"))
    return RemoteJob(
        id=_key(answer["id"], 100),
        status=_key(answer["status"], 40),
        created_at=_timestamp(answer.get("created_at")),
        training_files=tuple(map(str, _list(answer.get("training_files")))),
        fine_tuned_model=_optional(answer.get("fine_tuned_model"), 200),
        message=_words(answer.get("message")),
        cost=_amount(metadata.get("cost")),
        cost_currency=_words(metadata.get("cost_currency")),
        expected_duration_s=_count(metadata.get("expected_duration_seconds")),
        train_tokens=_count(metadata.get("train_tokens")),
        data_tokens=_count(metadata.get("data_tokens")),
        events=tuple(_events(answer.get("events"))),
        checkpoints=tuple(map(_checkpoint, map(_mapping, _list(answer.get("checkpoints"))))),
    )


def _events(entries: Any) -> Iterator[RemoteEvent]:
    """Those whose time can be one: what is told of a job must not keep it from being followed."""
    for event in map(_mapping, _list(entries)):
        with contextlib.suppress(MalformedAnswer):
            yield RemoteEvent(storable(str(event.get("name"))), _timestamp(event.get("created_at")), _said_of(event))


def _checkpoint(point: Mapping[str, Any]) -> RemoteCheckpoint:
    losses = _mapping(point.get("metrics"))
    return RemoteCheckpoint(
        _count(point.get("step_number")) or 0, _number(losses.get("train_loss")), _number(losses.get("valid_loss"))
    )


def batch_of(answer: Any, secrets: Sequence[str] = ()) -> RemoteBatch:
    """A batch job, without `secrets` in its errors. Raises MalformedAnswer for an answer that holds none."""
    metadata = _field(answer, "metadata")
    return RemoteBatch(
        id=_key(answer.id, 100),
        status=_key(answer.status, 40),
        endpoint=_key(answer.endpoint, 100),
        created_at=_timestamp(answer.created_at),
        metadata={
            name: value
            for name, value in (metadata if isinstance(metadata, Mapping) else {}).items()
            if isinstance(value, str)
        },
        total_requests=_count(answer.total_requests) or 0,
        succeeded_requests=_count(answer.succeeded_requests) or 0,
        failed_requests=_count(answer.failed_requests) or 0,
        output_file=_optional(_field(answer, "output_file") or None, 100),
        error_file=_optional(_field(answer, "error_file") or None, 100),
        errors=tuple(storable(without_secrets(str(error.message), secrets)) for error in answer.errors),
        started_at=_optional_timestamp(_field(answer, "started_at")),
        completed_at=_optional_timestamp(_field(answer, "completed_at")),
    )


def file_of(answer: Any) -> RemoteFile:
    """An uploaded file."""
    return RemoteFile(_key(answer.id, 100), str(answer.filename), int(answer.size_bytes))


def id_of(entry: Any) -> str:
    """The id of anything listed; entries of a kind the SDK does not know keep theirs in `raw`."""
    raw = _field(entry, "raw")
    return str(raw.get("id") if isinstance(raw, Mapping) else _field(entry, "id"))


def model_of(card: Any) -> RemoteModel:
    """A model; cards of a kind the SDK does not know have only their id."""
    capabilities = _field(card, "capabilities")
    return RemoteModel(
        id=id_of(card),
        can_chat=bool(_field(capabilities, "completion_chat")),
        is_archived=bool(_field(card, "archived")),
        aliases=tuple(alias for alias in map(str, _list(_field(card, "aliases"))) if fault_of_name(alias) is None),
        deprecated_at=_date(_field(card, "deprecation")),
        replacement=_name(_field(card, "deprecation_replacement_model")),
    )


def listed_model(card: Any) -> RemoteModel | None:
    """A model from a list's plain JSON; None for one without a usable id."""
    return model_of(card) if isinstance(card, Mapping) and _name(card.get("id")) is not None else None


def _field(answer: Any, name: str) -> Any:
    """A field's value; None where it is absent, null or `Unset`."""
    value = answer.get(name) if isinstance(answer, Mapping) else getattr(answer, name, None)
    return None if type(value).__name__ == "Unset" else value


def _key(value: Any, max_chars: int) -> str:
    """An id or a status, which is stored and sent back as it is. Raises MalformedAnswer for one that cannot be."""
    key = str(value)
    if not key or len(key) > max_chars or storable(key) != key:
        raise MalformedAnswer("Mistral's answer holds an id or a status that cannot be one")
    return key


def _name(value: Any) -> str | None:
    """A model's name; None where it cannot be one."""
    return value if isinstance(value, str) and value and fault_of_name(value) is None else None


def _date(value: Any) -> str | None:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = datetime.fromisoformat(value)
    return value.isoformat() if isinstance(value, datetime) else None


def _optional(value: Any, max_chars: int) -> str | None:
    return None if value is None else _key(value, max_chars)


def _words(value: Any) -> str | None:
    return None if value is None else storable(str(value))


def _timestamp(value: Any) -> int:
    """Seconds since 1970. Raises MalformedAnswer for a time outside the calendar."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or not 0 <= value <= _MAX_TIMESTAMP:
        raise MalformedAnswer("Mistral's answer holds a time that cannot be one")
    return value


def _optional_timestamp(value: Any) -> int | None:
    """None where the time is not known; 0 says the same."""
    return _timestamp(value) if value else None


def _number(value: Any) -> float | None:
    # NaN and infinities cannot be compared with a cap, nor stored as JSON.
    fits = isinstance(value, (int, float)) and -sys.float_info.max <= value <= sys.float_info.max
    return float(value) if fits else None


def _amount(value: Any) -> float | None:
    """A cost; None where it cannot be one: below 0 it would be under every cap."""
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= MAX_AMOUNT else None


def _count(value: Any) -> int | None:
    """Tokens, steps or seconds; None where they cannot be."""
    return value if type(value) is int and 0 <= value <= MAX_NUMBER else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _said_of(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """What came with an event, each value as words."""
    entries = _mapping(event.get("data"))
    return {storable(str(name)): _said(entry) for name, entry in entries.items() if entry is not None}


def _said(value: Any) -> Any:
    return [storable(str(item)) for item in value] if isinstance(value, list) else storable(str(value))
