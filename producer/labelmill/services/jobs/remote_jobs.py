"""The jobs of Mistral's Batch API that work for a batch, as `status` shows them."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.engine import Connection, RowMapping

from labelmill.contracts.documents.parts import RemoteJobEntry, WaitingFor
from labelmill.contracts.job_kinds import ENDED
from labelmill.contracts.states import BatchState, Mode, RemoteStep, Stopping
from labelmill.core.database.tables import RemoteBatchRow
from labelmill.core.jobs.remote_batches import holds_rows

_PHASES = {
    RemoteStep.READING: "reading results",
    RemoteStep.WAITING: "waiting for Mistral's batch jobs",
    RemoteStep.CREATING: "uploading",
    RemoteStep.UPLOADING: "uploading",
    RemoteStep.PACKING: "packing",
}  #: The first that some remote batch is in.
_AT_MISTRAL = (RemoteStep.WAITING.value, RemoteStep.CLEANING.value, RemoteStep.DONE.value)


def remote_jobs_of(connection: Connection, batch: RowMapping) -> list[RemoteJobEntry]:
    """The jobs, the oldest first."""
    if batch["mode"] == Mode.REALTIME.value:
        return []
    columns = (RemoteBatchRow.remote_id, RemoteBatchRow.remote_status, RemoteBatchRow.step, RemoteBatchRow.rows)
    of_batch = select(*columns).where(RemoteBatchRow.batch_no == batch["no"]).order_by(RemoteBatchRow.no)
    return [
        {"id": row.remote_id, "status": (row.step in _AT_MISTRAL and row.remote_status) or row.step, "rows": row.rows}
        for row in connection.execute(of_batch)
    ]


def remote_phase(connection: Connection, batch: RowMapping) -> str | None:
    """What goes on with the jobs of a batch that runs by them; None: it has ended, or does not."""
    if batch["state"] in ENDED or batch["state"] == BatchState.SUBMITTING.value or not _runs_by_jobs(batch):
        return None
    if batch["stopping"] is not None:
        return "cancelling" if batch["stopping"] == Stopping.CANCEL.value else "moving to realtime"
    steps = set(
        connection.scalars(
            select(RemoteBatchRow.step).where(RemoteBatchRow.batch_no == batch["no"], holds_rows()).distinct()
        )
    )
    return next((phase for step, phase in _PHASES.items() if step.value in steps), None)


def waiting_for_jobs(connection: Connection, batch: RowMapping) -> WaitingFor | None:
    """Reason `remote_batch`: Mistral works on the jobs of the batch, and nothing is to be done here. None: it runs in
    realtime, or a worker has something to do."""
    if not _runs_by_jobs(batch):
        return None
    at_work = (RemoteBatchRow.batch_no == batch["no"]) & (RemoteBatchRow.step == RemoteStep.WAITING.value)
    found = connection.execute(
        select(
            func.count(),
            func.sum(RemoteBatchRow.requests),
            func.sum(RemoteBatchRow.answered),
            func.min(RemoteBatchRow.made_at),
        ).where(at_work)
    ).one()
    jobs, requests, done, since = found
    if not jobs:
        return None
    what = "a batch job" if jobs == 1 else f"{jobs} batch jobs"
    return {
        "reason": "remote_batch",
        "message": f"Mistral works on {what}: {int(done):,} of {int(requests):,} requests are done",
        "since": datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds") if since else None,
    }


def _runs_by_jobs(batch: RowMapping) -> bool:
    return bool(batch["runs_in"] == Mode.BATCH.value)
