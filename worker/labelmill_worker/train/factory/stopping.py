"""What a training that is given up leaves at Mistral: a job that may spend is cancelled first."""

from __future__ import annotations

from collections.abc import Callable

from labelmill.contracts.errors import RemoteFailed, RequestRefused
from labelmill.contracts.states import TrainingState
from labelmill.core.database.tables import TrainingRow
from labelmill_worker.ports import control_plane as port
from labelmill_worker.train.factory.remote_job import files_of

_ENDED = {port.SUCCESS, port.FAILED, port.FAILED_VALIDATION, port.CANCELLED, port.CANCELLATION_REQUESTED}


def stop_at_mistral(plane_of: Callable[[], port.ControlPlane], row: TrainingRow) -> None:
    """Cancel the training's job, if it has one that still runs. A job that was never started costs nothing and may lie.

    Raises what the port raises; then it may run on.
    """
    if row.method != "factory" or row.remote_status in _ENDED:
        return
    training_files = files_of(row, "train")
    if row.remote_job is None and (row.state != TrainingState.VALIDATING or not training_files):
        return
    plane = plane_of()
    try:
        job = plane.get_job(row.remote_job) if row.remote_job else plane.find_job(training_files[0])
    except RemoteFailed:
        return  # gone
    if job is None or job.status in _ENDED:
        return
    try:
        plane.cancel_job(job.id)
    except RequestRefused:
        if job.status in (port.RUNNING, port.STARTED) and plane.get_job(job.id).status not in _ENDED:
            raise
