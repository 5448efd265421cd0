"""Reads many lines at a time. Lines that are too long are skipped: a small packed file may contain gigabytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

BOM = b"\xef\xbb\xbf"
MAX_LINE_BYTES = 64 << 20  #: Unpacked.
TOO_LONG = f"longer than {MAX_LINE_BYTES >> 20} MiB"

BLOCK_BYTES = 1 << 19  #: Small enough to stay in the CPU's cache while it is processed several times.


def whole_lines(stream: BinaryIO, *, carriage_returns: bool = False) -> Iterator[bytes | None]:
    """Some thousand complete lines at a time; the last may have no line end. None stands for a line that is too long.

    A line ends with a line feed; with `carriage_returns` a carriage return alone ends one too. A byte order mark is
    taken off the first line. Holds one line of `MAX_LINE_BYTES` at most.
    """
    start = BOM
    unfinished: list[bytes] = []
    size = 0  # of the unfinished line, also once it is too long and no longer kept
    while block := stream.read(BLOCK_BYTES):
        end = _end_of_lines(block, carriage_returns=carriage_returns)
        if not end:
            size += len(block)
            unfinished = [*unfinished, block] if size <= MAX_LINE_BYTES else []
            continue
        if size + len(block) > MAX_LINE_BYTES:  # else no line can be too long
            first = _end_of_first_line(block, carriage_returns=carriage_returns)
            if size + first - 1 > MAX_LINE_BYTES:
                yield None
                unfinished, start = [], b""
                block, end = block[first:], end - first
        if end:
            yield b"".join((*unfinished, block[:end])).removeprefix(start)
            start = b""
        unfinished, size = [block[end:]], len(block) - end
    if size > MAX_LINE_BYTES:
        yield None
    elif size:
        yield b"".join(unfinished).removeprefix(start)


def _end_of_lines(block: bytes, *, carriage_returns: bool) -> int:
    """Where the last unfinished line begins."""
    end = block.rfind(b"\n") + 1
    if carriage_returns and end < len(block):
        # one at the very end may be the first half of a line break
        end = max(end, block.rfind(b"\r", 0, len(block) - 1) + 1)
    return end


def _end_of_first_line(block: bytes, *, carriage_returns: bool) -> int:
    ends = [block.find(b"\n") + 1]
    if carriage_returns and (at := block.find(b"\r", 0, len(block) - 1) + 1):
        ends.append(at + 1 if block[at : at + 1] == b"\n" else at)
    return min(end for end in ends if end)
