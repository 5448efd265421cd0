"""From the SDK's answers to the port's dataclasses. The SDK marks an absent field with a falsy `Unset`, not None."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from labelmill.contracts.errors import MalformedAnswer
from labelmill_worker.mistral.port import RemoteCheckpoint, RemoteEvent, RemoteFile, RemoteJob, RemoteModel


def job_of(answer: Any) -> RemoteJob:
    """A fine-tuning job from any answer that holds one. Raises MalformedAnswer for one that does not."""
    if not getattr(answer, "id", None) or not hasattr(answer, "status"):
        raise MalformedAnswer("Mistral's answer holds no fine-tuning job")
    metadata = _field(answer, "metadata")
    return RemoteJob(
        id=str(answer.id),
        status=str(answer.status),
        created_at=int(answer.created_at),
        training_files=tuple(_field(answer, "training_files") or ()),
        fine_tuned_model=_field(answer, "fine_tuned_model"),
        message=_field(answer, "message"),
        cost=_number(_field(metadata, "cost")),
        cost_currency=_field(metadata, "cost_currency"),
        expected_duration_s=_field(metadata, "expected_duration_seconds"),
        train_tokens=_field(metadata, "train_tokens"),
        data_tokens=_field(metadata, "data_tokens"),
        events=tuple(
            RemoteEvent(event.name, int(event.created_at), _mapping(_field(event, "data")))
            for event in _field(answer, "events") or ()
        ),
        checkpoints=tuple(
            RemoteCheckpoint(
                int(point.step_number),
                _number(_field(point.metrics, "train_loss")),
                _number(_field(point.metrics, "valid_loss")),
            )
            for point in _field(answer, "checkpoints") or ()
        ),
    )


def file_of(answer: Any) -> RemoteFile:
    """An uploaded file."""
    return RemoteFile(str(answer.id), str(answer.filename), int(answer.size_bytes))


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
    )


def _field(answer: Any, name: str) -> Any:
    """A field's value; None where it is absent, null or `Unset`."""
    value = getattr(answer, name, None)
    return None if type(value).__name__ == "Unset" else value


def _number(value: Any) -> float | None:
    # NaN and infinities cannot be compared with a cap, nor stored as JSON.
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
