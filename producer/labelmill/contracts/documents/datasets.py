"""What the list of datasets holds."""

from __future__ import annotations

from typing_extensions import TypedDict


class DatasetEntry(TypedDict):
    """A dataset in the list of datasets. `label_counts`: target → number of labels."""

    id: str
    name: str
    version: int | None
    state: str
    repeats: str | None
    splits: dict[str, int] | None
    dropped: dict[str, int] | None
    fingerprint: str | None
    error: str | None
    created_at: str
    finished_at: str | None
    label_counts: dict[str, int]
