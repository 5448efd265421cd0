"""The flow of one chunk, in a task's thread: claim → plan → send → write as answers come → close or hand back."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import cast

import structlog

from labelmill.contracts.dispatch import dispatch_batch
from labelmill.contracts.errors import BrokerUnavailable, LabelmillError
from labelmill.contracts.messages import CLASSIFY, ChunkMessage
from labelmill.contracts.queue import MessageSender
from labelmill_worker.classify.answers import Scores, decide, threshold_of
from labelmill_worker.classify.engine import ClassifyEngine
from labelmill_worker.classify.planning import plan_requests
from labelmill_worker.classify.sending import Answer, ChunkSender, Outcome, PutOff, RowFailed, Stop
from labelmill_worker.classify.strategies import strategy_for
from labelmill_worker.store.chunks import (
    Claim,
    LeaseLostError,
    Progress,
    claim_chunk,
    complete_batch,
    hand_back,
    record_progress,
    stop_batch,
)

log = structlog.get_logger()

SLICE_S = 5.0  #: A task that has run so long hands back the rest, so that batches share the workers fairly.
GIVE_UP_AFTER = 60  #: Claims without any progress; then the rows left get the last error. About an hour of faults.


def work_on_chunk(shared: ClassifyEngine, sender: MessageSender, batch_id: str, number: int) -> None:
    """Do what can be done on a chunk in one task. Does nothing when it is not owed. Raises DatabaseUnavailable."""
    claim = claim_chunk(shared.engine, batch_id, number, shared.settings.lease_s)
    if claim is None:
        log.debug("nothing owed")
        return
    try:
        _ChunkWork(shared, sender, claim).run()
    except LeaseLostError:
        log.warning("lease lost; nothing more is written")
    try:
        dispatch_batch(shared.engine, sender, batch_id)
    except BrokerUnavailable:
        log.warning("no further chunks sent: Redis cannot be reached")


class _ChunkWork:
    """One claim at work."""

    def __init__(self, shared: ClassifyEngine, sender: MessageSender, claim: Claim) -> None:
        self._shared = shared
        self._messages = sender
        self._claim = claim
        self._lease_s = shared.settings.lease_s
        self._outcomes: queue.SimpleQueue[list[Outcome] | None] = queue.SimpleQueue()
        self._left: set[int] = set()
        self._recorded_requests = 0
        self._sent_all = False
        self._progressed = False
        self._stop: Stop | None = None
        self._put_off: PutOff | None = None
        self._wanted = True
        self._strategy = strategy_for(shared, claim.model, claim.options)
        self._sender = ChunkSender(
            self._strategy, shared.limiter, shared.slots, shared.verdict(claim.batch_id), self._outcomes.put
        )

    def run(self) -> None:
        """Send what is unanswered and record it; ends with the chunk closed, handed back or the batch stopped."""
        rows, texts = self._unanswered()
        self._left = set(rows)
        requests = plan_requests(rows, texts, self._shared.settings.texts_per_request)

        async def send() -> None:
            loop_time = self._shared.loop.time
            self._sender.deadline = loop_time() + min(SLICE_S, self._lease_s)
            try:
                await self._sender.send_all(requests)
            finally:
                self._outcomes.put(None)

        sending = self._shared.start(send())
        try:
            self._record_as_they_come()
            sending.result()
        except BaseException:
            self._sender.stop()
            self._let_go()
            raise
        self._finish()

    def _let_go(self) -> None:
        """Wait for what is under way and record none of it: its slots must not stay taken."""
        while not self._sent_all:
            if self._outcomes.get() is None:
                self._sent_all = True
            else:
                self._shared.release_slots(1)

    def _unanswered(self) -> tuple[list[int], list[str]]:
        """The rows still to send. A blank text fails unsent."""
        claim = self._claim
        rows: list[int] = []
        texts: list[str] = []
        blank: list[Outcome] = []
        for index, text in enumerate(claim.input.texts):
            row = claim.first_row + index
            if index in claim.input.repeats or row in claim.answered:
                continue
            if not text or text.isspace():
                blank.append(RowFailed(row, EmptyText("the text is empty")))
                continue
            rows.append(row)
            texts.append(text)
        if blank:
            self._record([blank], closing=False)
        return rows, texts

    def _record_as_they_come(self) -> None:
        """Write outcomes as they arrive, all that have gathered in one transaction. Renews the lease at least every
        third of it."""
        while not self._sent_all:
            groups: list[list[Outcome]] = []
            try:
                first = self._outcomes.get(timeout=min(self._lease_s / 3, 1.0))
                self._sent_all = first is None
                if first is not None:
                    groups.append(first)
                while not self._sent_all:
                    following = self._outcomes.get_nowait()
                    self._sent_all = following is None
                    if following is not None:
                        groups.append(following)
            except queue.Empty:
                pass
            try:
                self._record(groups, closing=self._sent_all)
            finally:
                self._shared.release_slots(len(groups))
            if not self._wanted or self._stop:
                self._sender.stop()

    def _record(self, groups: Sequence[list[Outcome]], *, closing: bool) -> None:
        progress = Progress()
        for outcomes in groups:
            for outcome in outcomes:
                if isinstance(outcome, Answer):
                    self._add_answer(progress, outcome)
                elif isinstance(outcome, RowFailed):
                    self._add_failure(progress, outcome.row, outcome.error)
                elif isinstance(outcome, Stop):
                    self._stop = self._stop or outcome
                else:
                    self._put_off = outcome.or_worse(self._put_off)
        sent = self._sender.requests  # read once: the loop goes on counting
        progress.requests = sent - self._recorded_requests
        self._recorded_requests = sent
        self._progressed = self._progressed or bool(progress.predictions or progress.errors)
        done = closing and not self._left
        self._wanted = record_progress(self._shared.engine, self._claim, progress, self._lease_s, done=done)

    def _add_answer(self, progress: Progress, answer: Answer) -> None:
        claim, schema = self._claim, self._strategy.schema
        assert schema is not None  # noqa: S101 - an answer is checked against it
        count = len(answer.request)
        offsets = [row - claim.first_row for row in answer.request.rows]
        ids = claim.input.ids
        names = [ids[offset] for offset in offsets] if ids else [None] * count
        abstained = [False] * count
        for number, (target, scores) in enumerate(zip(schema.targets, cast("Scores", answer.scores), strict=True)):
            threshold = threshold_of(target.name, claim.options.get("thresholds"), claim.model.thresholds)
            raw, width = scores.astype("<f4", copy=False).tobytes(), scores.shape[1] * 4
            for index, decision in enumerate(decide(scores, target, threshold)):
                progress.predictions.append(
                    (
                        claim.batch_no, answer.request.rows[index], number, names[index], decision.label,
                        decision.labels, decision.score, raw[index * width : (index + 1) * width],
                    )
                )  # fmt: skip
                if decision.label is None and decision.labels is None:
                    abstained[index] = True
        self._left.difference_update(answer.request.rows)
        weights = [1 + claim.repeats.get(row, 0) for row in answer.request.rows] if claim.repeats else [1] * count
        held = sum(weight for weight, silent in zip(weights, abstained, strict=True) if silent)
        progress.abstained += held
        progress.labelled += sum(weights) - held
        progress.tokens += answer.tokens

    def _add_failure(self, progress: Progress, row: int, error: LabelmillError) -> None:
        claim = self._claim
        name = claim.input.ids[row - claim.first_row] if claim.input.ids else None
        progress.errors.append((claim.batch_no, row, name, error.code, error.message.replace("\x00", "")))
        progress.failed += 1 + claim.repeats.get(row, 0)
        self._left.discard(row)

    def _finish(self) -> None:
        """Close the chunk, or hand back what is left of it."""
        claim, engine = self._claim, self._shared.engine
        if self._stop is not None:
            stop_batch(engine, claim, self._stop.error.code, self._stop.error.message)
            hand_back(engine, claim)
            log.error("batch stopped", reason=self._stop.error.message)
            return
        if not self._left:
            complete_batch(engine, claim.batch_no, claim.batch_id)
            return
        if not self._wanted:
            hand_back(engine, claim)
            return
        error = self._put_off.error if self._put_off else None
        # a limit, the end of a slice or a Redis that is gone say nothing about Mistral
        fruitless = error is not None and not isinstance(error, BrokerUnavailable) and not self._progressed
        if error is not None and fruitless and claim.attempts >= GIVE_UP_AFTER:
            self._record([[RowFailed(row, error) for row in sorted(self._left)]], closing=True)
            complete_batch(engine, claim.batch_no, claim.batch_id)
            return
        # a fruitless claim is tried again later and later
        asked_s = self._put_off.wait_s if self._put_off else 0.0
        wait_s = min(60.0, max(asked_s, 2.0 ** min(claim.attempts, 6) if fruitless else 0.0))
        hand_back(engine, claim, wait_s=wait_s, fruitless=fruitless)
        self._send_again(wait_s)

    def _send_again(self, wait_s: float) -> None:
        message = ChunkMessage(job_id=self._claim.batch_id, chunk=self._claim.number)
        priority = self._claim.priority
        try:
            self._messages.send(CLASSIFY, [message], priority=priority, countdown_s=wait_s if wait_s >= 1 else None)
        except BrokerUnavailable:
            log.warning("chunk handed back without a message: Redis cannot be reached")


class EmptyText(LabelmillError):
    """A row without text: nothing was sent for it."""

    code = "empty_text"
