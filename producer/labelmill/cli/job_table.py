"""The output of `labelmill status` on a terminal. Pure, except for the printing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from labelmill.cli.figures import money
from labelmill.cli.tables import print_rows, short_time

_HEADINGS = ("id", "state", "about", "progress", "cost", "created (UTC)", "error")


def print_jobs(console: Console, documents: Sequence[Mapping[str, Any]]) -> None:
    """Print jobs as `list_jobs` returns them; the prefix of an id shows its kind."""
    print_rows(console, _HEADINGS, [_row(job) for job in documents], flowing=("about", "error"))


def at_a_glance(document: Mapping[str, Any]) -> dict[str, Any]:
    """Print a status document, with its progress and what it waits for in words."""
    progress = document["progress"]
    rows = _progress(progress)
    return {
        **document,
        "progress": progress and (f"{progress['phase']} {rows} rows" if rows else None),
        "waiting_for": document["waiting_for"] and document["waiting_for"]["message"],
    }


def _row(job: Mapping[str, Any]) -> tuple[str, ...]:
    about = ", ".join(filter(None, (job["model"], job["name"] if job["name"] != job["model"] else None)))
    return (
        job["id"],
        str(job["state"]).replace("_", " "),
        about,
        _progress(job["progress"]),
        money(job["cost"]),
        short_time(str(job["created_at"]))[:16],
        job["error"] or "",
    )


def _progress(progress: Mapping[str, Any] | None) -> str:
    if not progress or progress["done"] is None:
        return ""
    done, total = progress["done"], progress["total"]
    if total is None:
        return f"{done:,}"
    # rounded down: 100% stands for all of them
    return f"{done:,}/{total:,}" + (f" ({done * 100 // total}%)" if total and done < total else "")
