"""Figures: shown as a table, kept as JSON, written to `docs/benchmarks.md`."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import orjson

_DOCS = Path(__file__).parents[2] / "docs"
_INTRODUCTION = """# Benchmarks

Every figure comes from `make bench` (`python ops/bench/run.py`): the canned server, the load, the database and what it
is compared with run side by side on one machine, in turns, so that only the ratios mean something elsewhere. The
*reference* ([reference.py](../ops/bench/reference.py)) is what an expert would write instead, with no queue: one
asyncio script with aiohttp and orjson that reads the file, calls the API with the same concurrency and writes the same
rows to the same database with its fastest bulk insert. Medians, with the smallest and the largest run in brackets.
"""


@dataclass(frozen=True)
class Figure:
    """One line of the table: a value for each run, and the bound it is held to, if any."""

    name: str
    values: list[float]
    bound: float | None = None
    at_most: bool = False
    unit: str = "times"
    note: str = ""

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def verdict(self) -> str:
        """Whether the bound holds, to two decimals."""
        if self.bound is None:
            return ""
        rounded = round(self.middle, 2)
        return "yes" if (rounded <= self.bound if self.at_most else rounded >= self.bound) else "**no**"

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "median": self.middle,
            "values": self.values,
            "bound": self.bound,
            "at_most": self.at_most,
            "unit": self.unit,
            "note": self.note,
            "holds": self.verdict,
        }


def _number(value: float, unit: str) -> str:
    return f"{value:,.0f}" if unit == "rows/s" else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _line(one: dict[str, Any]) -> list[str]:
    unit, values = one["unit"], one["values"]
    shown = f"{_number(one['median'], unit)} {unit}"
    if len(values) > 1:
        shown += f" ({_number(min(values), unit)} to {_number(max(values), unit)})"
    bound = "" if one["bound"] is None else f"{'at most' if one['at_most'] else 'at least'} {one['bound']:g}"
    return [one["name"], shown, bound, one["holds"], one["note"]]


def show(figures: list[Figure]) -> None:
    """Print a table."""
    for figure in figures:
        name, shown, bound, holds, note = _line(figure.document())
        print(f"{name:<90} {shown:>36}  {bound:<14} {holds.strip('*'):<4} {note}", flush=True)


def keep(found: dict[str, list[Figure]], rows: int, runs: int) -> None:
    """Put figures in the place of earlier ones of the same measurement, and write the page anew."""
    _DOCS.mkdir(exist_ok=True)
    path = _DOCS / "benchmarks.json"
    kept = orjson.loads(path.read_bytes()) if path.exists() else {}
    for name, figures in found.items():
        kept[name] = {
            "at": datetime.now(UTC).strftime("%Y-%m-%d"),
            "rows": rows,
            "runs": runs,
            "machine": _machine(),
            "figures": [figure.document() for figure in figures],
        }
    path.write_bytes(orjson.dumps(kept, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    _write_page(kept)


def _machine() -> str:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores ({model}), {memory_gib:.0f} GiB, Python {platform.python_version()}"


def _write_page(kept: dict[str, Any]) -> None:
    lines = [_INTRODUCTION]
    for name, measurement in kept.items():
        if not measurement["figures"]:
            continue
        lines += [
            f"## {name}",
            "",
            f"{measurement['at']}, {measurement['machine']}, {measurement['runs']} runs.",
            "",
            "| what | measured | bound | holds | |",
            "| --- | --- | --- | --- | --- |",
            *(f"| {' | '.join(_line(one))} |" for one in measurement["figures"]),
            "",
        ]
    if _plot(kept):
        lines += ["![Measured over required](benchmarks.png)", ""]
    (_DOCS / "benchmarks.md").write_text("\n".join(lines))


def _plot(kept: dict[str, Any]) -> bool:
    """Draw measured over required for every bound, when matplotlib happens to be there."""
    if find_spec("matplotlib") is None:
        return (_DOCS / "benchmarks.png").exists()
    import matplotlib.pyplot as plt  # noqa: PLC0415 - no dependency of ours

    bounded = [one for measurement in kept.values() for one in measurement["figures"] if one["bound"]]
    shares = [one["bound"] / one["median"] if one["at_most"] else one["median"] / one["bound"] for one in bounded]
    figure, axes = plt.subplots(figsize=(10, 0.35 * len(bounded) + 1.2))
    colours = ["#2b7a4b" if share >= 0.995 else "#b3402a" for share in shares]
    axes.barh([one["name"] for one in bounded], shares, color=colours)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 2, 5, 10, 20], labels=["0.5", "1", "2", "5", "10", "20"])
    axes.minorticks_off()
    axes.set_xlim(0.4, max(2.0, *shares) * 1.1)
    axes.invert_yaxis()
    figure.suptitle("measured over required (1: just holds)", fontsize=10)  # below the narrow axes it would be cut off
    figure.tight_layout()
    figure.savefig(_DOCS / "benchmarks.png", dpi=110)
    return True
