"""Following a job on the terminal: its phase, rows done and in all, their rate and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from labelmill.cli.figures import duration
from labelmill.contracts.control_characters import visible_line
from labelmill.contracts.job_kinds import ENDED, RESTING
from labelmill.contracts.states import TrainingState
from labelmill.services.jobs.lost_reads import LostReads
from labelmill.services.jobs.requests import JobRequest

if TYPE_CHECKING:
    from labelmill.contracts.documents.jobs import JobDocument
    from labelmill.services.context import ServiceContext

_LOOK_S, _SELDOM_S = 0.1, 1.0
_RATE_OVER_S = 30.0


class _Rows(ProgressColumn):
    """`1,200/5,313 rows`; without a total the count alone, and nothing before the first row."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(f"{task.completed:,.0f} rows" if task.completed else "")
        return Text(f"{task.completed:,.0f}/{task.total:,.0f} rows" if task.total else "")


class _Rate(ProgressColumn):
    """`97 rows/s, 2 min left`."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed or task.finished:
            return Text("")
        rate = f"{speed:,.0f} rows/s" if speed >= 10 else f"{speed:.1f} rows/s"
        left_s = task.time_remaining
        return Text(f"{rate}, {duration(left_s)} left" if left_s else rate)


def bar(console: Console) -> Progress:
    """The progress bar of every long wait; hidden when stderr is not a terminal."""
    narrow = console.width < 100
    columns: list[ProgressColumn] = [
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=10 if narrow else 40),
        _Rows(),
        _Rate(),
    ]
    if not narrow:
        columns.append(TimeElapsedColumn())
    return Progress(
        *columns,
        console=console,
        disable=not console.is_terminal,
        transient=True,
        speed_estimate_period=_RATE_OVER_S,
    )


def follow(
    context: ServiceContext, job_id: str, console: Console, lost_reads: Callable[[str], LostReads]
) -> JobDocument:
    """Watch a job until it ends or waits for a person; returns its last status document.

    Looks often at first and less often later. Without a terminal each new state and phase, and each new reason why
    nothing moves, is a plain line. Raises DatabaseUnavailable.
    """
    from labelmill.services.jobs.documents import job_status  # noqa: PLC0415 - SQLAlchemy, which the help spares

    request = JobRequest(job_id)
    lost = lost_reads(job_id)
    pause_s = _LOOK_S
    with bar(console) as progress:
        shown = _Shown(progress, console, job_id)
        while True:
            document = lost.read(lambda: job_status(context, request))
            shown.show(document)
            if document["state"] in RESTING:
                return document
            time.sleep(pause_s)
            pause_s = min(_SELDOM_S, pause_s * 1.3)


class _Shown:
    """The display on the terminal."""

    def __init__(self, progress: Progress, console: Console, job_id: str) -> None:
        self._progress, self._console, self._job_id = progress, console, job_id
        self._task: TaskID | None = None
        self._began_at = progress.get_time()
        self._phase = self._reason = ""

    def show(self, document: Mapping[str, Any]) -> None:
        """Bring it up to date."""
        progress = document.get("progress") or {}
        phase = progress.get("phase") or str(document["state"]).replace("_", " ")
        done, total = progress.get("done") or 0, progress.get("total")
        if not progress and document["state"] == TrainingState.SUCCEEDED:
            total = 0  # a full bar, without a number of rows
        if phase != self._phase or self._task is None:
            self._begin(phase, done, total)
            if document["state"] in ENDED:
                self._progress.tasks[0].start_time = self._began_at  # the last frame shows the time of all phases
        else:
            self._progress.update(self._task, completed=done, total=total)
        waiting_for = document.get("waiting_for") or {}
        if (reason := str(waiting_for.get("message") or "")) != self._reason:
            self._reason = reason
            if reason:
                self._console.print(visible_line(f"{self._job_id}: {reason}"))

    def _begin(self, phase: str, done: int, total: int | None) -> None:
        """A separate bar for each phase, because a rate over two phases would be meaningless."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        # rows done before the display started do not count for the rate
        self._task = self._progress.add_task(visible_line(f"{self._job_id} {phase}"), completed=done, total=total)
        self._phase = phase
        if not self._console.is_terminal:
            self._console.print(visible_line(f"{self._job_id} {phase}"), highlight=False)
