"""`labelmill.classify`: one chunk of a batch, or the next step of a remote batch."""

from __future__ import annotations

import random

from labelmill.contracts.errors import WorkerUnable
from labelmill.contracts.ids import remote_batch_of
from labelmill.contracts.messages import ChunkMessage
from labelmill_worker.inference.batch_mode.poller import poll_remote_batch
from labelmill_worker.inference.batch_mode.work import BatchModeContext
from labelmill_worker.inference.chunk_run import work_on_chunk
from labelmill_worker.inference.unable import leave_message
from labelmill_worker.runtime.bootstrap import ProcessResources


def run(resources: ProcessResources, message: ChunkMessage) -> None:
    """Work on the chunk for at most a slice of time, or take the step."""
    if (number := remote_batch_of(message.job_id)) is not None:
        context = BatchModeContext(
            resources.engine,
            resources.sender,
            resources.ability,
            resources.storage,
            lambda: resources.batch_jobs,
            resources.settings,
            random.Random(),
        )
        poll_remote_batch(context, number)
        return
    try:
        runtime = resources.inference
    except WorkerUnable as error:
        leave_message(resources.engine, resources.sender, resources.ability, message, error)
        return
    work_on_chunk(runtime, resources.sender, message.job_id, message.chunk)
