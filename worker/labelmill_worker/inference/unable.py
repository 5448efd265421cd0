"""Chunks that this worker cannot work on: left to another worker, or their batch ends when there is none."""

from __future__ import annotations

import contextlib

import structlog
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import WorkerUnable
from labelmill.contracts.job_kinds import QUEUE_OF
from labelmill.contracts.messages import CLASSIFY, ChunkMessage
from labelmill.core.database import writing
from labelmill.core.jobs import events
from labelmill.core.jobs.delays import MODEL_PREFIX, model_subject
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.queue.sender import MessageSender
from labelmill_worker.process.ability import MISTRAL, Ability
from labelmill_worker.process.requeue import requeue
from labelmill_worker.store.batches import fail_batch, read_open_batch
from labelmill_worker.store.chunks import Claim, release_chunk, stop_batch

log = structlog.get_logger()
_QUEUE = QUEUE_OF[CLASSIFY]


def lacks_mistral(ability: Ability) -> WorkerUnable | None:
    """Why this worker leaves all batches to others; None: it may try."""
    error = ability.lacks(MISTRAL)
    return error if error is not None and ability.leaves_to_others(error, MISTRAL, _QUEUE) else None


def models_left_to_others(ability: Ability) -> list[int]:
    """The keys of models whose batches this worker leaves to others."""
    inabilities = (
        (subject, ability.lacks(subject)) for subject in ability.lacking() if subject.startswith(MODEL_PREFIX)
    )
    return [
        int(subject.removeprefix(MODEL_PREFIX))
        for subject, error in inabilities
        if error is not None and ability.leaves_to_others(error, subject, _QUEUE)
    ]


def leave_message(
    engine: Engine, sender: MessageSender, ability: Ability, message: ChunkMessage, error: WorkerUnable
) -> None:
    """For a message that names a batch this worker cannot work on: it goes back on its queue. The batch ends where
    no other worker may work on it."""
    batch = read_open_batch(engine, message.job_id)
    if batch is None:
        return
    if ability.leaves_to_others(error, model_subject(batch.model_no), _QUEUE):
        requeue(sender, CLASSIFY, message, priority=batch.priority)
    elif fail_batch(engine, message.job_id, error):
        log.error("batch stopped", reason=error.message)


def leave_claim(engine: Engine, sender: MessageSender, ability: Ability, claim: Claim, error: WorkerUnable) -> None:
    """Release a chunk that this worker cannot work on, and end its batch where no other worker may."""
    is_left = ability.leaves_to_others(error, model_subject(claim.model.no), _QUEUE)
    if is_left:
        with writing(engine) as connection:
            events.note(connection, claim.batch_id, f"left to another worker: {error.message}", chunk=claim.number)
    else:
        stop_batch(engine, claim, error)
        log.error("batch stopped", reason=error.message)
    with contextlib.suppress(LeaseLost):  # all of its rows were answered, or another worker has it
        release_chunk(engine, claim, wait_s=0.0 if is_left else None)
    if is_left:
        message = ChunkMessage(job_id=claim.batch_id, chunk=claim.number)
        requeue(sender, CLASSIFY, message, priority=claim.priority)
