"""The lines of a CSV file by number; those of the row that is being read can be read again."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import BinaryIO, NamedTuple

from labelmill.core.readers.whole_lines import BLOCK_BYTES, MAX_LINE_BYTES, whole_lines

IMPOSSIBLE = '"x"x\n'  #: Replaces a line that is too long: invalid CSV both as a row and inside a quoted cell.


class RowTooLongError(Exception):
    """The row that is being read has more than `MAX_LINE_BYTES`."""


class Block(NamedTuple):
    """Some whole lines, the first of which is line number `start`."""

    start: int
    lines: list[str]
    size: int  #: Bytes.
    is_odd: bool = False  #: `csv.reader` would misread it.

    @property
    def end(self) -> int:
        """The number of the line after the block."""
        return self.start + len(self.lines)


class Lines:
    """Buffers the lines from `first` on; the reader of rows moves `first` to the beginning of the next row."""

    def __init__(self, stream: BinaryIO, is_odd: Callable[[str], bool]) -> None:
        self.first = 1
        self.is_utf8 = True  #: So far. Else bytes that are not stand as lone surrogates.
        self._is_odd = is_odd
        self._next = 1
        self._blocks: deque[Block] = deque()
        self._source = whole_lines(stream, carriage_returns=True)

    def block_with(self, number: int) -> Block | None:
        """The block that holds a line, not before `first`; None after the last line. Raises RowTooLongError."""
        for block in self._blocks:
            if block.start <= number < block.end:
                return block
        while (raw := next(self._source, b"")) != b"":
            while self._blocks and self._blocks[0].end <= self.first:
                self._blocks.popleft()
            block = self._decoded(raw)
            self._blocks.append(block)
            self._next = block.end
            if sum(block.size for block in self._blocks) > MAX_LINE_BYTES + BLOCK_BYTES:
                raise RowTooLongError
            if block.start <= number < block.end:
                return block
        return None

    def _decoded(self, raw: bytes | None) -> Block:
        if raw is None:
            return Block(self._next, [IMPOSSIBLE], 0)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            self.is_utf8 = False
            text = raw.decode("utf-8", "surrogateescape")
        # splits at a carriage return alone too, and leaves all line breaks as they are
        return Block(self._next, list(io.StringIO(text, newline="")), len(raw), self._is_odd(text))

    def line(self, number: int) -> str | None:
        """One line with its end; None after the last. Raises RowTooLongError."""
        block = self.block_with(number)
        return None if block is None else block.lines[number - block.start]

    def from_line(self, number: int) -> Iterator[str]:
        """The lines from a number on. Raises RowTooLongError."""
        return chain.from_iterable(self._lists_from(number))

    def _lists_from(self, number: int) -> Iterator[list[str]]:
        while (block := self.block_with(number)) is not None:
            yield block.lines if number == block.start else block.lines[number - block.start :]
            number = block.end
