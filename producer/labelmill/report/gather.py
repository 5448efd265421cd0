"""From a job's id to its report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Connection

from labelmill.contracts.ids import Kind
from labelmill.core.database import reading
from labelmill.report import batch, dataset, evaluation, spending, training
from labelmill.report.parts import Note, Part, Report
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.documents import status_document
from labelmill.services.jobs.requests import JobRequest

_PARTS_OF: dict[str, Callable[[Connection, Any], list[Part]]] = {
    Kind.BATCH.value: batch.parts_of,
    Kind.DATASET.value: dataset.parts_of,
    Kind.EVALUATION.value: evaluation.parts_of,
    Kind.TRAINING.value: training.parts_of,
}
_DONE = {"ready", "succeeded", "completed"}


def gather_report(context: ServiceContext, request: JobRequest) -> Report:
    """The report of a job in any state, from everything in the database about it. Raises NotFound."""
    job_id = request.job_id
    with reading(context.engine) as connection:
        document = status_document(connection, job_id, context.prices)
        parts_of = _PARTS_OF.get(document["kind"])
        parts = parts_of(connection, document) if parts_of else []
        parts += spending.parts_of(connection, job_id)
    state = document["state"]
    if document["error"]:
        parts.insert(0, Note(f"It {state}: {document['error']}", "bad"))
    elif state not in _DONE:
        parts.insert(0, Note(f"It is {state.replace('_', ' ')}: this is how it stands now.", "warning"))
    subject = document.get("model") or document.get("name") or job_id
    when = f", finished {_minute(document['finished_at'])}" if document["finished_at"] else ""
    subtitle = f"{job_id}, {state.replace('_', ' ')}, created {_minute(document['created_at'])}{when} (UTC)"
    return Report(f"{document['kind'].capitalize()}: {subject}", subtitle, parts)


def _minute(timestamp: str | None) -> str:
    return (timestamp or "")[:16].replace("T", " ")
