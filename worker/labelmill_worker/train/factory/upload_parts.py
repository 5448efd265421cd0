"""Cutting a training file that is larger than Mistral takes into several, at row boundaries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labelmill.contracts.errors import InvalidInput, WorkerUnable

MAX_FILE_BYTES = 500_000_000  #: Mistral refuses files of more than 512 MB.


def part_ranges(path: Path, max_bytes: int = MAX_FILE_BYTES) -> list[tuple[int, int]]:
    """`(offset, bytes)` of every part, in order; the whole file where it is small enough. Raises InvalidInput."""
    try:
        size = path.stat().st_size
        if size <= max_bytes:
            return [(0, size)]
        return list(_ranges(path, max_bytes))
    except OSError as error:
        raise WorkerUnable(f"the dataset's file {path.name} cannot be opened: {error.strerror}") from error


def _ranges(path: Path, max_bytes: int) -> Iterator[tuple[int, int]]:
    start = end = 0
    with path.open("rb") as lines:
        for line in lines:
            if len(line) > max_bytes:
                raise InvalidInput(f"a row of {path.name} alone is larger than Mistral takes a file")
            if end + len(line) - start > max_bytes:
                yield start, end - start
                start = end
            end += len(line)
    yield start, end - start


def write_part(path: Path, part: tuple[int, int], into: Path) -> None:
    """Copy one part into a file of its own."""
    offset, left = part
    with path.open("rb") as source, into.open("wb") as target:
        source.seek(offset)
        while left:
            block = source.read(min(left, 1 << 20))
            if not block:
                break
            target.write(block)
            left -= len(block)
