"""What a remote job's answer means for a training. Pure functions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from labelmill.core.database.tables import TrainingRow
from labelmill_worker.ports.control_plane import RemoteEvent, RemoteJob

SPLITS = ("train", "validation")  #: The splits a training uploads.

_REASON_KEYS = ("error", "message", "reason", "detail", "errors")


def file_name(training_id: str, split: str, path: str) -> str:
    """The name under which a split's file lies at Mistral: it carries the training's id, so that a later attempt
    finds what an earlier one uploaded."""
    return f"{training_id}-{split}{PurePath(path).suffix or '.jsonl'}"


def files_of(row: TrainingRow, split: str) -> tuple[str, ...]:
    """Mistral's ids of a split's files."""
    ids = (row.remote_files or {}).get(split) or ()
    return (ids,) if isinstance(ids, str) else tuple(ids)


def estimate_of(job: RemoteJob) -> dict[str, Any] | None:
    """The cost that Mistral names for a validated job, with expected seconds and tokens; None when it names none."""
    if job.cost is None:
        return None
    return {
        "amount": job.cost,
        "currency": job.cost_currency,
        "expected_duration_s": job.expected_duration_s,
        "train_tokens": job.train_tokens,
        "data_tokens": job.data_tokens,
    }


def may_start(cost: float | None, max_cost: float | None, *, approved: bool) -> bool:
    """Whether money may be spent: a person said yes, or the cost is known and within the cap."""
    return approved or (max_cost is not None and cost is not None and cost <= max_cost)


def checkpoints_of(job: RemoteJob) -> list[dict[str, Any]]:
    """`[{step, train_loss, valid_loss}]`, by step."""
    points = sorted(job.checkpoints, key=lambda point: point.step)
    return [{"step": p.step, "train_loss": p.train_loss, "valid_loss": p.valid_loss} for p in points]


def event_lines(job: RemoteJob) -> list[tuple[datetime, str]]:
    """The job's history at Mistral as lines for the `events` table, oldest first, each once."""
    lines = {(datetime.fromtimestamp(event.created_at, UTC), _line(event)): None for event in job.events}
    return sorted(lines, key=lambda line: line[0])


def reason_of(job: RemoteJob) -> str:
    """Why a job failed, in Mistral's own words."""
    newest_first = sorted(job.events, key=lambda event: event.created_at, reverse=True)
    said = next(filter(None, (_reason(event) for event in newest_first)), None)
    what = "refused the training files" if job.status == "FAILED_VALIDATION" else "ended the job as failed"
    return f"Mistral {what}: {job.message or said or f'no reason given (status {job.status})'}"


def _line(event: RemoteEvent) -> str:
    parts = [f"{value}" if key == "status" else f"{key}={value}" for key, value in event.data.items()]
    return " ".join(["Mistral:", event.name, *parts])


def _reason(event: RemoteEvent) -> str | None:
    for key in _REASON_KEYS:
        value = event.data.get(key)
        if value:
            return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return None
