"""What came of one claim so far, as the recorder's thread knows it; the task gets it as a value when it has ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from labelmill.contracts.usage import Usage
from labelmill.core.jobs.leases import LeaseLost
from labelmill_worker.inference.outcomes import Answer, Deferred, Delivery, RowFailed, Stop, Unforeseen
from labelmill_worker.inference.sending_window import SendingWindow
from labelmill_worker.inference.tally import tally
from labelmill_worker.store.budgets import Cap
from labelmill_worker.store.chunks import Claim
from labelmill_worker.store.progress import Entry, Standing


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What came of a claim."""

    rows_left: frozenset[int]  #: Without an outcome.
    stop: Stop | None
    deferred: Deferred | None
    unforeseen: Exception | None  #: A fault of ours in one of its requests.
    has_progressed: bool  #: A row got its answer or error.
    is_wanted: bool  #: The batch still runs.
    rows: int
    requests: int
    tokens: int
    refused: tuple[Cap, int] | None = None  #: The cap that held requests back, and the cost that it was too low for.


@dataclass(slots=True)
class Gathered:
    """What arrived for one chunk since the last transaction."""

    answers: list[Answer] = field(default_factory=list)
    failures: list[RowFailed] = field(default_factory=list)
    slots: int = 0
    is_last: bool = False


class ChunkRecord:
    """Belongs to the recorder's thread, but for `result`. `window` is where the loop is told what becomes of the claim:
    here it is only an address."""

    def __init__(self, claim: Claim, rows_left: Iterable[int], window: SendingWindow) -> None:
        self.claim = claim
        self.window = window
        self.renewed_at = claim.claimed_at
        self.fault: Exception | None = None  #: Why nothing more of this claim is recorded.
        self._is_left = np.zeros(len(claim.input.texts), bool)  # a byte a row: a set takes sixty, and twice the time
        self._is_left[np.array([*rows_left], np.int64) - claim.first_row] = True
        self._stop: Stop | None = None
        self._deferred: Deferred | None = None
        self._unforeseen: Exception | None = None
        self._has_progressed, self._is_wanted = False, True
        self._requests_to_record = self._tokens_to_record = 0
        self._usages_to_record: list[Usage] = []
        self._rows = self._requests = self._tokens = 0
        self._result: Future[ChunkResult] = Future()

    def result(self) -> ChunkResult:
        """Wait until all is recorded. Raises what kept the recorder from it. For the task's thread."""
        return self._result.result()

    @property
    def is_over(self) -> bool:
        """Whether nothing more needs to be sent for the claim."""
        return self.fault is not None or self._stop is not None or not self._is_wanted

    @property
    def has_unrecorded_usage(self) -> bool:
        """Whether something was paid for that no transaction has recorded."""
        return bool(self._usages_to_record)

    def gather(self, gathered: Gathered, delivery: Delivery) -> None:
        """Sort what was delivered into what is written and what is kept for the task."""
        gathered.slots += delivery.slots
        self._requests_to_record += delivery.requests
        self._tokens_to_record += delivery.tokens
        self._usages_to_record += delivery.usages
        gathered.is_last = gathered.is_last or delivery.is_last
        for outcome in delivery.outcomes:
            if isinstance(outcome, Answer):
                gathered.answers.append(outcome)
            elif isinstance(outcome, RowFailed):
                gathered.failures.append(outcome)
            elif isinstance(outcome, Stop):
                self._stop = self._stop or outcome
            elif isinstance(outcome, Unforeseen):
                self._unforeseen = self._unforeseen or outcome.fault
            else:
                self._deferred = outcome.or_worse(self._deferred)

    def entry(self, gathered: Gathered) -> Entry:
        """The chunk's part of a transaction."""
        progress = tally(
            self.claim,
            gathered.answers,
            gathered.failures,
            requests=self._requests_to_record,
            further_tokens=self._tokens_to_record,
        )
        progress.usages, self._usages_to_record = self._usages_to_record, []
        self._requests_to_record = self._tokens_to_record = 0
        for answer in gathered.answers:
            self._settle(answer.request.rows)
        self._settle([failure.row for failure in gathered.failures])
        return Entry(self.claim, progress, done=gathered.is_last and not self._is_left.any())

    def _settle(self, rows: Sequence[int]) -> None:
        first_row = self.claim.first_row
        if isinstance(rows, range):  # without an array of its numbers, a fifth of the time
            self._is_left[rows.start - first_row : rows.stop - first_row] = False
        else:
            self._is_left[[row - first_row for row in rows]] = False

    def committed(self, entry: Entry, standing: Standing, asked_at: float) -> None:
        """Its part was written, in a transaction that began at `asked_at`."""
        if standing is Standing.LOST:
            self.fault = LeaseLost("the lease on the chunk was lost")
            return
        progress = entry.progress
        self.renewed_at = asked_at
        self._is_wanted = standing is Standing.WANTED
        self._has_progressed = self._has_progressed or progress.has_rows
        self._rows += progress.labelled + progress.abstained + progress.failed
        self._requests += progress.requests
        self._tokens += progress.tokens

    def end(self) -> None:
        """Hand the task what came of the claim."""
        if self.fault is not None:
            self._result.set_exception(self.fault)
            return
        self._result.set_result(
            ChunkResult(
                frozenset((np.flatnonzero(self._is_left) + self.claim.first_row).tolist()),
                self._stop,
                self._deferred,
                self._unforeseen,
                self._has_progressed,
                self._is_wanted,
                self._rows,
                self._requests,
                self._tokens,
            )
        )
