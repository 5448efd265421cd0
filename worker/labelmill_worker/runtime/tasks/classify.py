"""`labelmill.classify`: one chunk of a batch."""

from __future__ import annotations

from labelmill.contracts.errors import WorkerUnable
from labelmill.contracts.messages import ChunkMessage
from labelmill_worker.inference.chunk_run import work_on_chunk
from labelmill_worker.inference.unable import leave_message
from labelmill_worker.runtime.bootstrap import ProcessResources


def run(resources: ProcessResources, message: ChunkMessage) -> None:
    """Work on the chunk for at most a slice of time."""
    try:
        runtime = resources.inference
    except WorkerUnable as error:
        leave_message(resources.engine, resources.sender, resources.ability, message, error)
        return
    work_on_chunk(runtime, resources.sender, message.job_id, message.chunk)
