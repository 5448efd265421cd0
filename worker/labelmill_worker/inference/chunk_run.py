"""The flow of one chunk, in a task's thread: claim → plan → send → write as answers come → close or release.

`ChunkRun` owns it. The event loop and the recorder's thread get what they need as values and give values back:
deliveries go from the loop to the recorder, leases and slots from the recorder to the loop, and one `ChunkResult` comes
back to the task. Nothing of them refers to the run, so an ended chunk's texts leave memory at once.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import structlog

from labelmill.contracts.errors import BrokerUnavailable, Permanent, Retryable, WorkerUnable
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.messages import PRIORITY_OF, ChunkMessage
from labelmill.core.database.tables import ModelRow
from labelmill.core.jobs.delays import model_subject
from labelmill.core.jobs.dispatch import dispatch_batch
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.queue.sender import MessageSender
from labelmill_worker.inference import retry_policy
from labelmill_worker.inference.admission import Flow
from labelmill_worker.inference.allowance import Allowance
from labelmill_worker.inference.chunk_end import end_chunk, record_fault, stop_unusable_model
from labelmill_worker.inference.chunk_record import ChunkRecord, ChunkResult
from labelmill_worker.inference.claiming import claim_runnable_chunk
from labelmill_worker.inference.inference_runtime import InferenceRuntime
from labelmill_worker.inference.learned_labels import LearnedLabels
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.outcomes import Answer, Delivery
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.sender import ChunkOrder
from labelmill_worker.inference.sending_window import SendingWindow
from labelmill_worker.inference.strategies import strategy_for
from labelmill_worker.inference.strategies.strategy import Strategy
from labelmill_worker.inference.unable import leave_claim
from labelmill_worker.inference.unanswered_rows import RowsToSend, unanswered_rows
from labelmill_worker.process.delays import SubjectDelays
from labelmill_worker.store.answer_cache import earlier_answers, index_earlier_answers
from labelmill_worker.store.budgets import Holder, release, reserve
from labelmill_worker.store.chunks import Claim, save_learned_schema

log = structlog.get_logger()

SLICE_S = 5.0  #: A task that has run so long releases the rest of its chunk, so that batches share the workers fairly.
_DISPATCH_EVERY = 4  #: Not every chunk that ends sends the next ones: those on the queue are many times more.


def work_on_chunk(runtime: InferenceRuntime, messages: MessageSender, batch_id: str, number: int) -> None:
    """Do what can be done on a chunk in one task. Does nothing when none is runnable. Raises DatabaseUnavailable."""
    claim = claim_runnable_chunk(runtime, messages, ChunkMessage(job_id=batch_id, chunk=number))
    if claim is None:
        return
    # the message may have named another chunk: every line is about the one that was claimed
    with structlog.contextvars.bound_contextvars(job_id=claim.batch_id, chunk=claim.number):
        _work_on_claim(runtime, messages, claim)


def _work_on_claim(runtime: InferenceRuntime, messages: MessageSender, claim: Claim) -> None:
    try:
        strategy = strategy_for(
            version_of(claim.model),
            claim.options,
            storage=runtime.storage,
            texts_per_request=runtime.texts_per_request,
        )
        result = ChunkRun(runtime, claim, strategy).run()
        end_chunk(runtime, messages, claim, result)
    except WorkerUnable as error:
        leave_claim(runtime.engine, messages, runtime.ability, claim, error)
        return
    except Permanent as error:
        stop_unusable_model(runtime, claim, error)
        return
    except LeaseLost:
        log.warning("lease lost; nothing more is written")
    except Retryable:
        raise
    except Exception as fault:
        record_fault(runtime, messages, claim, fault)
        raise
    if claim.number % _DISPATCH_EVERY == 0:
        try:
            dispatch_batch(runtime.engine, messages, claim.batch_id)
        except BrokerUnavailable:
            log.warning("no further chunks sent: Redis cannot be reached")


class ChunkRun:
    """One claim at work."""

    def __init__(self, runtime: InferenceRuntime, claim: Claim, strategy: Strategy) -> None:
        self._runtime = runtime
        self._claim = claim
        self._strategy = strategy
        self._allowance: Allowance | None = None
        if claim.caps:
            holder = Holder(claim.token, (claim.batch_no, claim.number))
            self._allowance = Allowance(partial(reserve, runtime.engine, claim.caps, holder), runtime.prices)

    def run(self) -> ChunkResult:
        """Send what is unanswered; returns when all that came of it is recorded. Raises what kept it from that."""
        runtime, claim = self._runtime, self._claim
        to_send, blank = unanswered_rows(claim)
        slice_until = time.monotonic() + SLICE_S
        window = SendingWindow(slice_until, claim.claimed_at + runtime.lease_s)
        record = runtime.recorder.open(claim, [*to_send.rows, *(failed.row for failed in blank)], window)
        try:
            if blank:
                runtime.recorder.put(record, Delivery(blank))
            if claim.options.get("cache"):
                to_send = self._reuse_answers(record, to_send, slice_until)
            order = self._order(record, window)
            sending = runtime.send(claim.batch_id, order, self._strategy.plan(*to_send))
        except BaseException:
            runtime.recorder.put(record, Delivery((), is_last=True))  # or it would keep the lease of a chunk
            raise  # without work
        result = record.result()
        sending.result()
        if claim.caps:
            release(runtime.engine, claim.token)
        log.info(
            "chunk released" if result.rows_left else "chunk done",
            rows=result.rows,
            requests=result.requests,
            tokens=result.tokens,
            took_s=round(time.monotonic() - claim.claimed_at, 2),
        )
        if self._allowance is not None:
            result = replace(result, refused=self._allowance.refused)
        return result

    def _order(self, record: ChunkRecord, window: SendingWindow) -> ChunkOrder:
        runtime, claim = self._runtime, self._claim
        return ChunkOrder(
            strategy=self._strategy,
            labels=LearnedLabels(self._strategy.schema, partial(save_learned_schema, runtime.engine, claim.model.no)),
            flow=Flow(claim.batch_no, PRIORITY_OF[claim.priority], claim.number),
            window=window,
            delays=SubjectDelays(runtime.delays, model_subject(claim.model.no)),
            deliver=partial(runtime.deliver, record),
            defers_malformed=retry_policy.defers_malformed(claim.attempts),
            defers_unusable=retry_policy.defers_unusable(claim.attempts),
            defers_refused_alone=retry_policy.defers_refused_alone(claim.attempts),
            bisects_faults=claim.faults > 0,
            allowance=self._allowance,
        )

    def _reuse_answers(self, record: ChunkRecord, to_send: RowsToSend, until: float) -> RowsToSend:
        """Answer what an earlier batch of this model version has answered. Returns what is left to send: nothing when
        finding out took all the time there was."""
        schema, engine, model = self._strategy.schema, self._runtime.engine, self._claim.model
        if schema is None or not to_send.texts:
            return to_send
        if not index_earlier_answers(engine, model.no, exclude=self._claim.batch_no, until=until):
            return RowsToSend([], [])
        earlier = earlier_answers(engine, model.no, schema, to_send.texts, self._claim.options.get("temperatures"))
        known = earlier.indices.tolist()
        if known:
            request = Request([to_send.rows[index] for index in known], [to_send.texts[index] for index in known])
            self._runtime.recorder.put(record, Delivery([Answer(request, schema, earlier.scores, 0, is_cached=True)]))
        return to_send.without(set(known))


def version_of(model: ModelRow) -> ModelVersion:
    """A model version as strategies know it."""
    return ModelVersion(
        name=f"{model.name}@{model.version}",
        method=model.method,
        remote_model=model.remote_model or "",
        schema=LabelSchema.from_json(model.label_schema) if model.label_schema else None,
        recipe=model.recipe or {},
    )
