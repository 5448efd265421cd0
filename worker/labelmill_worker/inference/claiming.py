"""Which chunk a worker takes on a message: the next one by fairness, unless this worker cannot do it."""

from __future__ import annotations

import structlog

from labelmill.contracts.messages import ChunkMessage
from labelmill.core.jobs.delays import model_subject
from labelmill.core.queue.sender import MessageSender
from labelmill_worker.inference.inference_runtime import InferenceRuntime
from labelmill_worker.inference.unable import lacks_mistral, leave_message, models_left_to_others
from labelmill_worker.store.batches import read_open_batch
from labelmill_worker.store.chunks import Claim, claim_chunk
from labelmill_worker.store.fairness import most_deserving_chunk

log = structlog.get_logger()

_TRIES = 5  #: Another worker may be quicker to take the chunk that both of them chose.


def claim_runnable_chunk(runtime: InferenceRuntime, sender: MessageSender, message: ChunkMessage) -> Claim | None:
    """Claim a chunk: the message only says that there is work. What this worker cannot do is left to others. None:
    there is nothing to do here."""
    engine, ability = runtime.engine, runtime.ability
    error, exclude = lacks_mistral(ability), models_left_to_others(ability)
    if error is None:
        for _ in range(_TRIES):
            chosen = most_deserving_chunk(engine, message.job_id, message.chunk, exclude_models=exclude)
            if chosen is None:
                break
            claim = claim_chunk(engine, *chosen, runtime.lease_s, runtime.monthly_cap)
            if claim is not None:
                return claim
    if error is None and exclude:
        batch = read_open_batch(engine, message.job_id)
        error = ability.lacks(model_subject(batch.model_no)) if batch else None
    if error is not None:
        leave_message(engine, sender, ability, message, error)
    else:
        log.debug("nothing is runnable")
    return None
