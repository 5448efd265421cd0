"""The parts of a report, before they are drawn: plain data that can be written as JSON too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from labelmill.contracts.amounts import written

Tone = Literal["plain", "good", "warning", "bad"]


@dataclass(frozen=True)
class Heading:
    """Begins a section."""

    text: str


@dataclass(frozen=True)
class Note:
    """A sentence or two; the tone decides the colour."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Grid:
    """A table. Numbers are formatted for people; `texts`: the columns of long texts."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    caption: str = ""
    texts: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Dots:
    """A share of each label in each of several groups: one line a label, one dot a group."""

    name: str
    title: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[float]]
    axis: str


@dataclass(frozen=True)
class Curves:
    """Lines through points; `diagonal`: a line from (0, 0) to (1, 1), the perfect result."""

    name: str
    title: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    axes: tuple[str, str]
    diagonal: bool = False
    unit_axes: bool = False  #: Both go from 0 to 1.
    log_x: bool = False
    y_most: float | None = None  #: Nothing can lie above.


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of equal width between 0 and 1."""

    name: str
    title: str
    counts: Sequence[int]
    axis: str


@dataclass(frozen=True)
class Matrix:
    """Counts by row and column, shaded by their share of the row."""

    name: str
    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    counts: Sequence[Sequence[int]]
    axes: tuple[str, str]


Figure = Dots | Curves | Histogram | Matrix
Part = Heading | Note | Grid | Figure


@dataclass(frozen=True)
class Report:
    """A whole page."""

    title: str
    subtitle: str
    parts: Sequence[Part]

    def figures(self) -> list[Figure]:
        """Its figures, in order."""
        return [part for part in self.parts if isinstance(part, Figure)]


def facts(pairs: Mapping[str, str | float | None]) -> Grid:
    """A table of names and values; unknown values are left out."""
    return Grid((), [(name, value) for name, value in pairs.items() if value not in (None, "")])


def money(cost: Mapping[str, object] | None) -> str | None:
    """`0.0082 USD`, `about` where it is an estimate."""
    if not cost or cost.get("amount") is None:
        return None
    about = "about " if cost.get("estimated") else ""
    return f"{about}{written(float(str(cost['amount'])))} {cost['currency']}"
