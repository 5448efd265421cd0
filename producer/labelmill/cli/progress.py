"""Following a job on the terminal."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from labelmill.contracts.control_characters import visible_line
from labelmill.contracts.states import ENDED

if TYPE_CHECKING:
    from labelmill.client import Client

_PATIENCE_S = 15.0  # a worker that runs takes a job up in less
_STOPS = {state.value for state in ENDED} | {"awaiting_approval"}


def bar(console: Console) -> Progress:
    """The progress bar of every long wait; silent when stderr is no terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def follow(client: Client, job_id: str, console: Console) -> dict[str, Any]:
    """Watch a job until it ends or waits for a person; returns its last status document.

    Looks often at first and less often later; a plain line a change of state when there is no terminal.
    """
    shown = ""
    pause_s = 0.1
    untouched_until = time.monotonic() + _PATIENCE_S
    with bar(console) as progress:
        task = progress.add_task(visible_line(job_id), total=None)
        while True:
            document = client.status(job_id)
            state, done, total = _progress_of(document)
            progress.update(task, description=visible_line(f"{job_id} {state}"), completed=done, total=total)
            if state != shown and not console.is_terminal:
                console.print(f"{job_id} {state}", highlight=False)
            shown = state
            if document["state"] in _STOPS:
                return document
            if document["state"] == "queued" and time.monotonic() > untouched_until:
                untouched_until = math.inf
                console.print("no worker has taken it up yet: is one running? `labelmill doctor` looks")
            time.sleep(pause_s)
            pause_s = min(1.0, pause_s * 1.3)


def _progress_of(document: dict[str, Any]) -> tuple[str, int, int | None]:
    state = str(document["state"])
    rows = document.get("rows")
    if isinstance(rows, dict):
        return state, rows["submitted"] - rows["pending"], rows["submitted"]
    checkpoints = document.get("checkpoints")
    if checkpoints:
        loss = checkpoints[-1].get("train_loss")
        shown = state if loss is None else f"{state} (loss {loss:.4f})"
        return shown, checkpoints[-1]["step"], None
    return state, 0, None
