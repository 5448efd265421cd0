"""The interface of input formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from labelmill.contracts.specs import FileFormat, InputKind, ReadOptions
from labelmill.core.readers.bad_rows import BadRow, OnBadRow
from labelmill.core.readers.files import Source
from labelmill.core.readers.text_block import BLOCK_ROWS, TextBlock, add_row, new_block

Rows = Iterator[tuple[int, dict[str, Any]]]  #: The number of a line (in Parquet, of a row), and its values.


@dataclass(frozen=True, slots=True)
class Sample:
    """The beginning of a text file, from which its format is detected."""

    name: str
    suffix: str  #: In lower case, without `.gz`; empty for a stream.
    text: str
    encoding: str
    is_cut: bool  #: The last line may be incomplete.
    options: ReadOptions
    columns: Sequence[str]  #: Those that will be read.


class InputFormat(ABC):
    """One format of input files. Has no state."""

    kind: ClassVar[InputKind]  #: Its name as recorded with a job.
    title: ClassVar[str]  #: In messages.
    suffixes: ClassVar[tuple[str, ...]]
    magic: ClassVar[bytes] = b""  #: The first bytes of a binary format; empty: the format is text.
    has_delimiter: ClassVar[bool] = False  #: `--delimiter` and `--quoting` apply.

    def describe(self, sample: Sample) -> FileFormat:
        """How a file with this beginning is read. Raises InvalidInput for one that only resembles the format."""
        return FileFormat(kind=self.kind, encoding=sample.encoding)

    @abstractmethod
    def rows(self, source: Source, columns: list[str] | None, on_bad_row: OnBadRow) -> Rows:
        """Every row with these columns, or with all columns that have a unique name. Raises InvalidInput."""

    @abstractmethod
    def columns(self, source: Source) -> list[str]:
        """The names of a file's columns. Raises InvalidInput when there is no row that can be read."""

    def blocks(self, source: Source, columns: list[str], on_bad_row: OnBadRow) -> Iterator[TextBlock]:
        """Texts, and ids where two columns are given. Formats override it with a faster way than row by row."""
        block = new_block(columns)
        for line, values in self.rows(source, columns, on_bad_row):
            add_row(block, values, columns, BadRow(source.name, line, ""), on_bad_row)
            if len(block) >= BLOCK_ROWS:
                yield block
                block = new_block(columns)
        if block.texts:
            yield block
