"""The progress bar of a wait, up to the last frame that it shows."""

from __future__ import annotations

import io
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import NOBODY_REDIS, ROWS, write_files
from rich.console import Console
from rich.progress import Progress
from terminal import on_terminal

from labelmill.cli import progress
from labelmill.services.jobs import documents
from labelmill.services.jobs.lost_reads import LostReads

Look = tuple[str, dict[str, Any] | None]  #: A job's state and progress.


def at(phase: str, done: int | None = None, total: int | None = None) -> dict[str, Any]:
    return {"phase": phase, "done": done, "total": total}


PREPARED: list[Look] = [
    ("preparing", at("preparing", None)),
    ("preparing", at("preparing", 400)),
    ("ready", at("ready", 600, 600)),
]
EVALUATED: list[Look] = [
    ("queued", at("queued")),
    ("running", at("classifying", 300, 600)),
    ("running", at("measuring")),
    ("completed", at("completed", 600, 600)),
]
TRAINED: list[Look] = [("running", at("embedding", 300, 600)), ("running", at("fitting")), ("succeeded", None)]
FAILED: list[Look] = [("running", at("classifying", 300, 600)), ("failed", at("failed", 300, 600))]


def frames(monkeypatch: pytest.MonkeyPatch, looks: list[Look]) -> list[str]:
    """What the bar showed of a job, line by line."""
    given: Iterator[Look] = iter(looks)

    def status(*_: Any) -> dict[str, Any]:
        state, now = next(given)
        return {"id": "job_1", "state": state, "progress": now, "waiting_for": None}

    slept = list[float]()  # as if each pause took a second
    monkeypatch.setattr(documents, "job_status", status)
    monkeypatch.setattr(time, "sleep", slept.append)
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120, color_system=None, get_time=lambda: float(len(slept)))
    progress.follow(None, "job_1", console, lambda job_id: LostReads(job_id, print))  # type: ignore[arg-type] # unread
    return [line for line in re.split(r"[\r\n]|\x1b\[[0-9?]*[A-Za-z]", shown.getvalue()) if "job_1" in line]


@pytest.mark.parametrize(
    ("looks", "ends"),
    [
        (PREPARED, "job_1 ready ━+ 600/600 rows 0:00:02"),
        (EVALUATED, "job_1 completed ━+ 600/600 rows 0:00:03"),
        (TRAINED, "job_1 succeeded ━+ +0:00:02"),
    ],
)
def test_a_bar_is_shown_full_when_the_job_has_ended_well(
    monkeypatch: pytest.MonkeyPatch, looks: list[Look], ends: str
) -> None:
    bars, make = list[Progress](), progress.bar
    monkeypatch.setattr(progress, "bar", lambda console: bars.append(make(console)) or bars[-1])
    last = frames(monkeypatch, looks)[-1]
    assert re.search(ends, re.sub(" +", " ", last))
    assert last.count("━") == 40
    (task,) = bars[-1].tasks
    assert task.total is not None  # otherwise the bar would pulse
    assert task.completed == task.total


def test_the_bar_of_a_job_that_failed_stays_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    last = frames(monkeypatch, FAILED)[-1]
    assert "job_1 failed" in last
    assert "300/600 rows" in last
    assert last.count("━") == 20


def test_bars_of_a_submission_and_of_results_are_shown_full(sqlite_template: Path) -> None:
    shutil.copy(sqlite_template, "jobs.db")
    write_files()
    settings = {"LABELMILL_DATABASE_URL": "sqlite:///jobs.db", "LABELMILL_BROKER_URL": NOBODY_REDIS}
    submitted = on_terminal("classify", "good.jsonl", "--model", "ft:classifier:x", columns=120, **settings)
    assert f"{len(ROWS)}/{len(ROWS)} rows" in submitted.text
    (job_id,) = re.findall(r"submitted: (\w+)", submitted.text)
    assert "━" * 40 in on_terminal("results", job_id, "-o", "rows.jsonl", columns=120, **settings).text
