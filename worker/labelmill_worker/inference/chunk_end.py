"""What becomes of a claimed chunk once all is recorded: it is closed, or released, or its batch stops."""

from __future__ import annotations

import structlog

from labelmill.contracts.errors import BrokerUnavailable, LabelmillError, RequestRefused, WorkerUnable
from labelmill.contracts.messages import CLASSIFY, ChunkMessage
from labelmill.core.jobs.delays import model_subject
from labelmill.core.queue.sender import MessageSender
from labelmill_worker.inference import retry_policy
from labelmill_worker.inference.chunk_record import ChunkResult
from labelmill_worker.inference.inference_runtime import InferenceRuntime
from labelmill_worker.inference.outcomes import RowFailed, Stop
from labelmill_worker.inference.tally import tally
from labelmill_worker.process.ability import MISTRAL
from labelmill_worker.store.batches import fail_batch
from labelmill_worker.store.budgets import Cap
from labelmill_worker.store.chunks import Claim, complete_batch, has_answers, pause_at_cap, release_chunk, stop_batch
from labelmill_worker.store.faults import MAX_FAULTS, UnforeseenFault, record_chunk_fault
from labelmill_worker.store.progress import record_progress

log = structlog.get_logger()

_CAP_PAUSE_S = 1.0  #: Before a chunk is tried again while others hold the rest of a cap.


def end_chunk(runtime: InferenceRuntime, messages: MessageSender, claim: Claim, result: ChunkResult) -> None:
    """Close the chunk, or release what is left of it. Raises WorkerUnable where this worker cannot do it, and the fault
    of ours that is to be charged to the chunk."""
    if result.stop is not None:
        _stop(runtime, messages, claim, result, result.stop)
        return
    if result.has_progressed:
        for subject in (MISTRAL, model_subject(claim.model.no)):
            runtime.ability.succeeded(subject)
    if not result.rows_left:
        complete_batch(runtime.engine, claim.batch_no, claim.batch_id)
    elif not result.is_wanted:
        release_chunk(runtime.engine, claim)
    elif result.refused is not None:
        _wait_or_pause(runtime, messages, claim, *result.refused)
    elif result.unforeseen is not None:
        _after_fault_of_ours(runtime, claim, result, result.unforeseen)
    else:
        _release(runtime, messages, claim, result)


def record_fault(runtime: InferenceRuntime, messages: MessageSender, claim: Claim, fault: Exception) -> None:
    """Note a fault of ours where the claim is held, and let the chunk be tried again, or end its batch."""
    unforeseen = record_chunk_fault(runtime.engine, claim, fault)
    if unforeseen.is_last:
        fail_batch(runtime.engine, claim.batch_id, unforeseen)
    else:
        _send_again(messages, claim, unforeseen.pause_s)


def stop_unusable_model(runtime: InferenceRuntime, claim: Claim, error: LabelmillError) -> None:
    """End the batch of a model that cannot be asked at all."""
    stop_batch(runtime.engine, claim, error)
    release_chunk(runtime.engine, claim)
    log.error("batch stopped", reason=error.message)


def _stop(runtime: InferenceRuntime, messages: MessageSender, claim: Claim, result: ChunkResult, stop: Stop) -> None:
    error = stop.error
    if isinstance(error, RequestRefused) and has_answers(runtime.engine, claim.batch_no):
        # another process or an earlier claim was answered: it is these rows that are bad, each for itself
        runtime.note_answered(claim.batch_id)
        release_chunk(runtime.engine, claim)
        _send_again(messages, claim, 0.0)
        return
    if isinstance(error, WorkerUnable):
        raise error
    stop_batch(runtime.engine, claim, error)
    if result.rows_left:
        release_chunk(runtime.engine, claim)
    log.error("batch stopped", reason=error.message)


def _wait_or_pause(
    runtime: InferenceRuntime, messages: MessageSender, claim: Claim, cap: Cap, next_amount: int
) -> None:
    """At a cap: pause the batch, unless requests are under way whose reservation may come back."""
    if pause_at_cap(runtime.engine, claim, cap, next_amount):
        release_chunk(runtime.engine, claim)
        log.info("batch paused", reason=cap.reached(claim.charged_to).message)
        return
    release_chunk(runtime.engine, claim, wait_s=_CAP_PAUSE_S)
    _send_again(messages, claim, _CAP_PAUSE_S)


def _after_fault_of_ours(runtime: InferenceRuntime, claim: Claim, result: ChunkResult, fault: Exception) -> None:
    faults = 1 if result.has_progressed else claim.faults + 1
    if faults < MAX_FAULTS or not has_answers(runtime.engine, claim.batch_no):
        raise fault
    # other rows are answered: it is these that are bad
    _fail_rows_left(runtime, claim, result, UnforeseenFault(fault, faults))


def _release(runtime: InferenceRuntime, messages: MessageSender, claim: Claim, result: ChunkResult) -> None:
    error, asked_s = (result.deferred.error, result.deferred.wait_s) if result.deferred else (None, 0.0)
    # a limit, the end of a slice or a Redis that is gone say nothing about Mistral
    is_fruitless = error is not None and not isinstance(error, BrokerUnavailable) and not result.has_progressed
    if error is not None and is_fruitless and retry_policy.is_given_up(claim.attempts):
        _fail_rows_left(runtime, claim, result, error)
        return
    wait_s = retry_policy.claim_pause_s(asked_s, claim.attempts, is_fruitless=is_fruitless)
    release_chunk(runtime.engine, claim, wait_s=wait_s, fruitless=is_fruitless)
    _send_again(messages, claim, wait_s)


def _fail_rows_left(runtime: InferenceRuntime, claim: Claim, result: ChunkResult, error: LabelmillError) -> None:
    failed = tally(claim, (), [RowFailed(row, error) for row in sorted(result.rows_left)])
    record_progress(runtime.engine, claim, failed, runtime.lease_s, done=True)
    complete_batch(runtime.engine, claim.batch_no, claim.batch_id)


def _send_again(messages: MessageSender, claim: Claim, wait_s: float) -> None:
    message = ChunkMessage(job_id=claim.batch_id, chunk=claim.number)
    try:
        messages.send(CLASSIFY, [message], priority=claim.priority, countdown_s=wait_s if wait_s >= 1 else None)
    except BrokerUnavailable:
        log.warning("chunk released without a message: Redis cannot be reached")
