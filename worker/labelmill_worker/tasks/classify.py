"""`labelmill.classify`: one chunk of a batch."""

from __future__ import annotations

from labelmill.contracts.errors import CredentialsRefused, InvalidInput
from labelmill.contracts.messages import ChunkMessage
from labelmill_worker.bootstrap import Services
from labelmill_worker.classify.work import work_on_chunk
from labelmill_worker.store.batches import fail_batch


def run(services: Services, message: ChunkMessage) -> None:
    """Work on the chunk for at most a slice of time."""
    try:
        shared = services.classify_engine
    except (CredentialsRefused, InvalidInput) as error:
        fail_batch(services.engine, message.job_id, error)
        return
    work_on_chunk(shared, services.sender, message.job_id, message.chunk)
