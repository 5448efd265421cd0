"""Jobs in a notebook: a progress bar while they are waited for, and tables in place of dictionaries.

IPython is used where a notebook has loaded it, and never imported otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Protocol, cast

from labelmill.contracts.amounts import written
from labelmill.contracts.states import TrainingState

if TYPE_CHECKING:
    from labelmill.contracts.documents.jobs import JobDocument, JobEntry
    from labelmill.contracts.documents.parts import TargetMetrics
    from labelmill.services.jobs.waiting import OnProgress

_FIGURES = ("accuracy", "macro_f1", "weighted_f1", "micro_f1", "rows", "abstained", "failed")
_HIDDEN = {"metrics", "report", "details", "summary", "labels", "checkpoints"}


class _Display(Protocol):
    def update(self, obj: object) -> None: ...


class _Page:
    """A piece of a page, with words for where there is none."""

    def __init__(self, html: str, words: str) -> None:
        self._html, self._words = html, words

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return self._words


class _Bars:
    """A progress bar for each job, in one output of a cell."""

    def __init__(self) -> None:
        self._jobs: dict[str, JobEntry] = {}
        self._display: _Display | None = None

    def __call__(self, job: JobEntry) -> None:
        self._jobs[job["id"]] = job
        page = _Page("".join(map(_bar, self._jobs.values())), "\n".join(map(_line, self._jobs.values())))
        if self._display is not None:
            self._display.update(page)
            return
        show = sys.modules["IPython"].display.display
        self._display = cast("_Display", show(page, display_id=True))


def is_notebook() -> bool:
    """Whether this process runs the cells of a notebook."""
    python = sys.modules.get("IPython")
    shell = python.get_ipython() if python is not None and hasattr(python, "get_ipython") else None
    return shell is not None and hasattr(shell, "kernel")


def also_in_notebook(on_progress: OnProgress | None) -> OnProgress | None:
    """The same function, which in a notebook shows progress bars too."""
    if not is_notebook():
        return on_progress
    bars = _Bars()

    def show(job: JobEntry) -> None:
        bars(job)
        if on_progress is not None:
            on_progress(job)

    return show


def job_as_html(document: JobDocument) -> str:
    """A status document as a table, with the metrics of an evaluation below."""
    metrics = document["metrics"] if document["kind"] == "evaluation" else None
    fields = {
        name: value
        for name, value in document.items()
        if name not in _HIDDEN and value is not None and value not in ({}, [])
    }
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(_words(value))}</td></tr>" for name, value in fields.items()
    )
    return f"<table>{rows}</table>{metrics_as_html(metrics) if metrics else ''}"


def metrics_as_html(metrics: Mapping[str, TargetMetrics]) -> str:
    """The metrics of an evaluation, a row for each target."""
    heading = "".join(f"<th>{figure.replace('_', ' ')}</th>" for figure in ("target", *_FIGURES))
    rows = "".join(
        f"<tr><th>{escape(target)}</th>{''.join(f'<td>{_figure(figures.get(name))}</td>' for name in _FIGURES)}</tr>"
        for target, figures in metrics.items()
    )
    return f"<table><tr>{heading}</tr>{rows}</table>"


def _figure(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "" if value is None else escape(str(value))


def _words(value: object) -> str:
    if isinstance(value, Mapping) and "amount" in value and "currency" in value:
        amount = value["amount"]
        if not isinstance(amount, (int, float)):
            return "not known"
        return f"{'about ' if value.get('estimated') else ''}{written(amount)} {value['currency'] or ''}".strip()
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_words(inner)}" for name, inner in value.items() if inner is not None)
    return str(value)


def _bar(job: JobEntry) -> str:
    progress = job["progress"]
    done, total = (progress["done"] or 0, progress["total"]) if progress else (0, None)
    if job["state"] == TrainingState.SUCCEEDED:
        done = total = 1
    bar = f'<progress value="{done}" max="{total}"></progress>' if total else ""
    return f"<div>{escape(_line(job))} {bar}</div>"


def _line(job: JobEntry) -> str:
    progress = job["progress"]
    if progress is None or progress["done"] is None:
        return f"{job['id']} {job['state']}"
    total = f"/{progress['total']:,}" if progress["total"] else ""
    return f"{job['id']} {progress['phase']} {progress['done']:,}{total} rows"
