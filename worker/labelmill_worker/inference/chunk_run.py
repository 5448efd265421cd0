"""The flow of one chunk, in a task's thread: claim → plan → send → write as answers come → close or hand back."""

from __future__ import annotations

import time
from functools import partial

import structlog

from labelmill.contracts.errors import (
    BrokerUnavailable,
    LabelmillError,
    Permanent,
    RequestRefused,
    Retryable,
    WorkerUnable,
)
from labelmill.contracts.messages import CLASSIFY, PRIORITY_OF, ChunkMessage
from labelmill.core.jobs.delays import model_subject
from labelmill.core.jobs.dispatch import dispatch_batch
from labelmill.core.queue.sender import MessageSender
from labelmill_worker.inference.admission import Lane
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.recorder import ChunkRecord
from labelmill_worker.inference.runtime import ClassifyEngine
from labelmill_worker.inference.sender import Answer, ChunkSender, Outcome, RowFailed, Strategy
from labelmill_worker.inference.strategies import strategy_for
from labelmill_worker.inference.tally import tally
from labelmill_worker.inference.unable import (
    lacks_mistral,
    leave_claim,
    leave_message,
    models_left_to_others,
    subject_of,
)
from labelmill_worker.process.ability import MISTRAL
from labelmill_worker.process.delays import Delays
from labelmill_worker.store.answer_cache import earlier_answers, index_earlier_answers
from labelmill_worker.store.batches import fail_batch, read_open_batch
from labelmill_worker.store.chunks import (
    Claim,
    LeaseLostError,
    claim_chunk,
    complete_batch,
    hand_back,
    has_answers,
    stop_batch,
)
from labelmill_worker.store.fairness import most_deserving_chunk
from labelmill_worker.store.faults import GIVE_UP_AFTER as MAX_FAULTS
from labelmill_worker.store.faults import UnforeseenFault, record_chunk_fault
from labelmill_worker.store.progress import record_progress

log = structlog.get_logger()

SLICE_S = 5.0  #: A task that has run so long hands back the rest, so that batches share the workers fairly.
_DISPATCH_EVERY = 4  #: Not every chunk that ends looks for the next ones: those on the queue are many times more.
_CLAIM_TRIES = 5  #: Another worker may be quicker to take the chunk that both of them chose.
#: Claims in a row that brought nothing but malformed answers to a row before the row gets its error: half a minute. A
#: Mistral that answers everybody badly for some seconds must not cost rows that it can answer.
MALFORMED_CLAIMS = 5
GIVE_UP_AFTER = 60  #: Claims without any progress; then the rows left get the last error. About an hour of faults.


def work_on_chunk(shared: ClassifyEngine, sender: MessageSender, batch_id: str, number: int) -> None:
    """Do what can be done on a chunk in one task. Does nothing when it is not owed. Raises DatabaseUnavailable."""
    claim = _claim_what_is_owed(shared, sender, ChunkMessage(job_id=batch_id, chunk=number))
    if claim is None:
        return
    try:
        _ChunkWork(shared, sender, claim, strategy_for(shared, claim.model, claim.options)).run()
    except WorkerUnable as error:
        leave_claim(shared.engine, sender, shared.ability, claim, error)
        return
    except Permanent as error:  # the model cannot be asked at all
        stop_batch(shared.engine, claim, error.code, error.message)
        hand_back(shared.engine, claim)
        log.error("batch stopped", reason=error.message)
        return
    except LeaseLostError:
        log.warning("lease lost; nothing more is written")
    except Retryable:
        raise
    except Exception as fault:
        _record_fault(shared, sender, claim, fault)
        raise
    if claim.number % _DISPATCH_EVERY == 0:
        try:
            dispatch_batch(shared.engine, sender, claim.batch_id)
        except BrokerUnavailable:
            log.warning("no further chunks sent: Redis cannot be reached")


def _claim_what_is_owed(shared: ClassifyEngine, sender: MessageSender, message: ChunkMessage) -> Claim | None:
    """Claim the chunk that deserves it most: the message only says that there is work. What this worker cannot do is
    left to others."""
    ability = shared.ability
    error, exclude = lacks_mistral(ability), models_left_to_others(ability)
    if error is None:
        for _ in range(_CLAIM_TRIES):
            chosen = most_deserving_chunk(shared.engine, message.job_id, message.chunk, exclude_models=exclude)
            if chosen is None:
                break
            claim = claim_chunk(shared.engine, *chosen, shared.settings.lease_s)
            if claim is not None:
                return claim
    if error is None and exclude:
        batch = read_open_batch(shared.engine, message.job_id)
        error = ability.lacks(subject_of(batch.model_no)) if batch else None
    if error is not None:
        leave_message(shared.engine, sender, ability, message, error)
    else:
        log.debug("nothing owed")
    return None


def _record_fault(shared: ClassifyEngine, sender: MessageSender, claim: Claim, fault: Exception) -> None:
    """Note a fault of ours where the claim is held, and let the chunk be tried again, or end its batch."""
    found = record_chunk_fault(shared.engine, claim, fault)
    if found.is_last:
        fail_batch(shared.engine, claim.batch_id, found)
    else:
        _send_again(sender, claim, found.pause_s)


def _send_again(sender: MessageSender, claim: Claim, wait_s: float) -> None:
    message = ChunkMessage(job_id=claim.batch_id, chunk=claim.number)
    try:
        sender.send(CLASSIFY, [message], priority=claim.priority, countdown_s=wait_s if wait_s >= 1 else None)
    except BrokerUnavailable:
        log.warning("chunk handed back without a message: Redis cannot be reached")


def _note_delay(delays: Delays, subject: str, error: Exception) -> None:
    delays.held(subject, error)
    delays.keep_written()


class _ChunkWork:
    """One claim at work."""

    def __init__(self, shared: ClassifyEngine, messages: MessageSender, claim: Claim, strategy: Strategy) -> None:
        self._shared = shared
        self._messages = messages
        self._claim = claim
        self._strategy = strategy
        lane = Lane(claim.batch_no, PRIORITY_OF[claim.priority], claim.number, strategy.first_model)
        self._sender = ChunkSender(strategy, shared.turnstile, lane, shared.verdict(claim.batch_id), self._emit)
        self._sender.believes_in_better_answers = claim.attempts < MALFORMED_CLAIMS
        self._sender.bisects_faults = claim.faults > 0
        subject = model_subject(claim.model.no)
        # not a method of this object: what holds itself would stay in memory until the garbage collector runs
        self._sender.on_fault = partial(_note_delay, shared.delays, subject)
        self._sender.on_answer = partial(shared.delays.moves, subject)
        self._record = ChunkRecord(claim, strategy, self._sender, set())

    def _emit(self, outcomes: list[Outcome], slots: int) -> None:
        self._shared.recorder.put(self._record, outcomes, slots=slots)

    def run(self) -> None:
        """Send what is unanswered and record it; ends with the chunk closed, handed back or the batch stopped."""
        shared, claim, record = self._shared, self._claim, self._record
        rows, texts, blank = self._unanswered()
        record.left |= {*rows, *(failed.row for failed in blank)}
        self._sender.slice_until = time.monotonic() + SLICE_S
        self._sender.lease_until = claim.claimed_at + shared.settings.lease_s
        shared.recorder.open(record)
        if blank:
            shared.recorder.put(record, list(blank), slots=0)

        if claim.options.get("cache"):
            try:
                rows, texts = self._reuse_answers(rows, texts)
            except BaseException:
                shared.recorder.end(record)  # or it would keep the lease of a chunk that nobody works on
                raise

        async def send() -> None:
            try:
                await self._sender.send_all(self._strategy.plan(rows, texts))
            finally:
                shared.recorder.end(record)

        sending = shared.start(send())
        try:
            record.wait()
            sending.result()
        finally:
            self._sender.detach()
        log.info(
            "chunk released" if record.left else "chunk done",
            job_id=claim.batch_id,
            chunk=claim.number,
            rows=record.rows,
            requests=record.recorded_requests,
            tokens=record.tokens,
            took_s=round(time.monotonic() - claim.claimed_at, 2),
        )
        self._finish()

    def _reuse_answers(self, rows: list[int], texts: list[str]) -> tuple[list[int], list[str]]:
        """Answer what an earlier batch of this model version has answered. Returns what is left to send: nothing when
        finding out took all the time there was."""
        schema, engine, model = self._strategy.schema, self._shared.engine, self._claim.model
        if schema is None or not texts:
            return rows, texts
        if not index_earlier_answers(engine, model.no, besides=self._claim.batch_no, until=self._sender.slice_until):
            return [], []
        found = earlier_answers(engine, model.no, schema, texts, self._claim.options.get("temperatures"))
        known = found.indices.tolist()
        if known:
            request = Request([rows[index] for index in known], [texts[index] for index in known])
            self._emit([Answer(request, found.scores, 0, is_cached=True)], 0)
        left = sorted(set(range(len(rows))).difference(known))
        return [rows[index] for index in left], [texts[index] for index in left]

    def _unanswered(self) -> tuple[list[int], list[str], list[RowFailed]]:
        """The rows still to send and their texts, and those that fail unsent because they are blank."""
        claim = self._claim
        rows: list[int] = []
        texts: list[str] = []
        blank: list[RowFailed] = []
        for row, text in enumerate(claim.input.texts, claim.first_row):
            if row - claim.first_row in claim.input.repeats or row in claim.answered:
                continue
            if not text or text.isspace():
                blank.append(RowFailed(row, EmptyText("the text is empty")))
                continue
            rows.append(row)
            texts.append(text)
        return rows, texts, blank

    def _finish(self) -> None:
        """Close the chunk, or hand back what is left of it."""
        claim, engine, record = self._claim, self._shared.engine, self._record
        if record.progressed and record.stop is None:
            for subject in (MISTRAL, subject_of(claim.model.no)):
                self._shared.ability.succeeded(subject)
        if record.stop is not None:
            if isinstance(record.stop.error, RequestRefused) and has_answers(engine, claim.batch_no):
                # another process or an earlier claim was answered: it is these rows that are bad, each for itself
                self._shared.verdict(claim.batch_id).answered = True
                hand_back(engine, claim)
                _send_again(self._messages, claim, 0.0)
                return
            if isinstance(record.stop.error, WorkerUnable):
                raise record.stop.error
            stop_batch(engine, claim, record.stop.error.code, record.stop.error.message)
            if record.left:
                hand_back(engine, claim)
            log.error("batch stopped", reason=record.stop.error.message)
            return
        if not record.left:
            complete_batch(engine, claim.batch_no, claim.batch_id)
            return
        if not record.wanted:
            hand_back(engine, claim)
            return
        if record.unforeseen is not None:
            faults = 1 if record.progressed else claim.faults + 1
            if faults < MAX_FAULTS or not has_answers(engine, claim.batch_no):
                raise record.unforeseen
            # other rows are answered: it is these that are bad
            self._fail_rows_left(UnforeseenFault(record.unforeseen, faults))
            return
        error = record.put_off.error if record.put_off else None
        # a limit, the end of a slice or a Redis that is gone say nothing about Mistral
        fruitless = error is not None and not isinstance(error, BrokerUnavailable) and not record.progressed
        if error is not None and fruitless and claim.attempts >= GIVE_UP_AFTER:
            self._fail_rows_left(error)
            return
        # a fruitless claim is tried again later and later
        asked_s = record.put_off.wait_s if record.put_off else 0.0
        wait_s = min(60.0, max(asked_s, 2.0 ** min(claim.attempts, 6) if fruitless else 0.0))
        hand_back(engine, claim, wait_s=wait_s, fruitless=fruitless)
        _send_again(self._messages, claim, wait_s)

    def _fail_rows_left(self, error: LabelmillError) -> None:
        claim, engine, record = self._claim, self._shared.engine, self._record
        given_up = tally(claim, None, (), [RowFailed(row, error) for row in sorted(record.left)])
        record_progress(engine, claim, given_up, self._shared.settings.lease_s, done=True)
        complete_batch(engine, claim.batch_no, claim.batch_id)


class EmptyText(LabelmillError):
    """A row without text: nothing was sent for it."""

    code = "empty_text"
