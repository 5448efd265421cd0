"""The rows of a prepared split, as they are read for training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import orjson

from labelmill.contracts.chats import text_of_row
from labelmill.contracts.errors import Permanent, WorkerUnable
from labelmill.core.storage.base import ReadableFile, StoredFile

BLOCK_ROWS = 4_096

Row = tuple[str, dict[str, Any]]
"""A text, or what stands for a chat, and its labels by target."""


def read_rows(split: ReadableFile) -> Iterator[Row]:
    """Every row of a split, in order. Raises WorkerUnable when it is not there, Permanent when it is broken."""
    try:
        with split.open("rb") as lines:
            for line in lines:
                row = orjson.loads(line)
                yield text_of_row(row), row["labels"]
    except OSError as error:
        raise missing_here(split, error) from error
    except (ValueError, KeyError) as error:
        raise Permanent(f"the prepared split {split.name} cannot be read: prepare the dataset again") from error


def in_blocks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The same rows, some thousand at a time."""
    left = iter(rows)
    while block := list(islice(left, BLOCK_ROWS)):
        yield block


def holds_chats(split: ReadableFile | None) -> bool:
    """Whether a split's rows are chats. Raises WorkerUnable, Permanent."""
    if split is None:
        return False
    try:
        with split.open("rb") as lines:
            first = lines.readline()
        return bool(first) and "messages" in orjson.loads(first)
    except OSError as error:
        raise missing_here(split, error) from error
    except ValueError as error:
        raise Permanent(f"the prepared split {split.name} cannot be read: prepare the dataset again") from error


def missing_here(split: ReadableFile, error: OSError) -> WorkerUnable:
    """For a prepared split that this worker cannot open."""
    place = split.reference if isinstance(split, StoredFile) else str(split)
    return WorkerUnable(
        f"the prepared split {split.name} cannot be read: {error.strerror} ({place} in the data "
        "folder): mount the data folder, or prepare the dataset again"
    )
