"""One writer a process: what the requests of all its chunks bring goes to SQL together, a transaction at a time.

A slot is held from the start of a request until its outcome is committed, so a kill costs no more than the slots. While
one transaction runs, the next one's outcomes gather: the busier the process, the larger its transactions.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.core.database import translating_errors
from labelmill_worker.inference.sender import (
    Answer,
    ChunkSender,
    Outcome,
    PutOff,
    RowFailed,
    Stop,
    Strategy,
    Unforeseen,
)
from labelmill_worker.inference.tally import tally
from labelmill_worker.store.chunks import Claim, LeaseLostError
from labelmill_worker.store.commits import DATABASE_PAUSE_S, PATIENCE_S, was_committed
from labelmill_worker.store.fairness import unserved_batch
from labelmill_worker.store.progress import Entry, Standing, record_entries

log = structlog.get_logger()

_AT_ONCE = 100  #: Requests recorded in one transaction at most: ten thousand rows, whose packing takes memory.
_LINGER_S = 0.001  #: Outcomes that come alone wait for company: a transaction costs as much as writing a hundred rows.
_LOOK_S = 0.25  #: How often the recorder looks for batches that nobody serves.
_SETTLED_S = 1.0  #: A chunk that was claimed just now does not yield.


class ChunkRecord:
    """What came of one claim so far. Written by the recorder's thread, read by the task's once `ended` is set."""

    def __init__(self, claim: Claim, strategy: Strategy, sender: ChunkSender, left: set[int]) -> None:
        self.claim = claim
        self.strategy = strategy
        self.sender = sender
        self.left = left  #: Rows without an outcome.
        self.stop: Stop | None = None
        self.put_off: PutOff | None = None
        self.progressed = False
        self.wanted = True  #: The batch still runs.
        self.fault: Exception | None = None  #: Why nothing more of this claim is recorded.
        self.unforeseen: Exception | None = None  #: A fault of ours in one of its requests.
        self.ended = threading.Event()
        self.recorded_requests = self.recorded_tokens = 0
        self.rows = self.tokens = 0  #: That this claim brought.
        self.renewed_at = claim.claimed_at

    def wait(self) -> None:
        """Wait until every outcome is recorded. Raises what kept the recorder from it."""
        self.ended.wait()
        if self.fault is not None:
            raise self.fault


@dataclass
class _Gathered:
    """What arrived for one chunk since the last transaction."""

    answers: list[Answer] = field(default_factory=list)
    failures: list[RowFailed] = field(default_factory=list)
    slots: int = 0
    is_last: bool = False


_Item = tuple[ChunkRecord, list[Outcome] | None, int]


class Recorder:
    """Takes outcomes from the event loop and writes them in a thread of its own.

    `release_slots` is called with the number of requests whose outcomes are committed, or lost for good.
    """

    def __init__(self, engine: Engine, lease_s: float, release_slots: Callable[[int], None]) -> None:
        self._engine = engine
        self._lease_s = lease_s
        self._release_slots = release_slots
        self._arrived: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._open: set[ChunkRecord] = set()  # touched by the recorder's thread alone
        self._connection: Connection | None = None
        self._looking = ThreadPoolExecutor(1, thread_name_prefix="look")  # what is to be recorded does not wait for it
        self._look: Future[str | None] | None = None
        self._look_at = 0.0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def open(self, record: ChunkRecord) -> None:
        """Keep the chunk's lease from now on."""
        self._arrived.put((record, [], 0))

    def put(self, record: ChunkRecord, outcomes: list[Outcome], *, slots: int = 1) -> None:
        """Record outcomes; `slots` are released once they are committed."""
        self._arrived.put((record, outcomes, slots))

    def end(self, record: ChunkRecord) -> None:
        """Nothing more will come of this claim."""
        self._arrived.put((record, None, 0))

    def close(self) -> None:
        """Stop, once what has arrived is written."""
        self._arrived.put(None)
        self._thread.join()
        self._looking.shutdown()

    def _run(self) -> None:
        while True:
            try:
                if self._write_what_comes():
                    self._disconnect()
                    return
            except Exception:
                # the thread must outlive a fault of ours: every chunk of the process waits for it
                log.exception("recording failed")

    def _write_what_comes(self) -> bool:
        """Wait for outcomes and write them. Returns whether to stop. Holds on to nothing while it waits again."""
        items, stopping = self._take()
        self._record(self._gather(items))
        self._yield_to_unserved()
        return stopping

    def _take(self) -> tuple[list[_Item], bool]:
        """What has arrived, at the latest when a lease is due."""
        items: list[_Item] = []
        try:
            patience_s = min(_LOOK_S if self._look else 1.0, self._lease_s / 6)
            first = self._arrived.get(timeout=patience_s if self._open else None)
            if first is not None and not self._arrived.qsize():
                time.sleep(_LINGER_S)
            while first is not None:
                items.append(first)
                if len(items) >= _AT_ONCE:
                    return items, False
                first = self._arrived.get_nowait()
        except queue.Empty:
            return items, False
        return items, True

    def _gather(self, items: list[_Item]) -> dict[ChunkRecord, _Gathered]:
        found: dict[ChunkRecord, _Gathered] = {}
        for record, outcomes, slots in items:
            self._open.add(record)
            mine = found.setdefault(record, _Gathered())
            mine.slots += slots
            if outcomes is None:
                mine.is_last = True
                continue
            for outcome in outcomes:
                if isinstance(outcome, Answer):
                    mine.answers.append(outcome)
                elif isinstance(outcome, RowFailed):
                    mine.failures.append(outcome)
                elif isinstance(outcome, Stop):
                    record.stop = record.stop or outcome
                elif isinstance(outcome, Unforeseen):
                    record.unforeseen = record.unforeseen or outcome.fault
                else:
                    record.put_off = outcome.or_worse(record.put_off)
        due = time.monotonic() - self._lease_s / 3
        for record in self._open:
            if record.renewed_at < due:
                found.setdefault(record, _Gathered())
        return found

    def _record(self, found: dict[ChunkRecord, _Gathered]) -> None:
        try:
            self._write({record: mine for record, mine in found.items() if self._has_news(record, mine)})
        finally:
            self._release_slots(sum(mine.slots for mine in found.values()))
            for record, mine in found.items():
                if mine.is_last:
                    self._open.discard(record)
                    record.ended.set()
                elif record.fault or record.stop or not record.wanted:
                    record.sender.stop()

    @staticmethod
    def _has_news(record: ChunkRecord, mine: _Gathered) -> bool:
        return record.fault is None and bool(
            mine.answers or mine.failures or mine.is_last or not mine.slots  # a lease to renew
        )

    def _write(self, found: dict[ChunkRecord, _Gathered]) -> None:
        """One transaction for all. A chunk that spoils it is left out of a second one."""
        entries = {}
        for record, mine in found.items():
            try:
                entries[record] = self._entry(record, mine)
            except Exception as fault:  # noqa: BLE001 - it is raised again where the chunk is worked on
                record.fault = fault
        if not entries:
            return
        try:
            self._commit(entries)
        except Exception as fault:  # noqa: BLE001 - as above
            if len(entries) == 1 or isinstance(fault, DatabaseUnavailable):
                for record in entries:
                    record.fault = fault
                return
            for record, entry in entries.items():
                try:
                    self._commit({record: entry})
                except Exception as own:  # noqa: BLE001 - as above
                    record.fault = own

    @staticmethod
    def _entry(record: ChunkRecord, mine: _Gathered) -> Entry:
        progress = tally(record.claim, record.strategy.schema, mine.answers, mine.failures)
        for answer in mine.answers:
            record.left.difference_update(answer.request.rows)
        record.left.difference_update(failure.row for failure in mine.failures)
        sent, further = record.sender.requests, record.sender.further_tokens  # read once: the loop goes on counting
        progress.requests = sent - record.recorded_requests
        progress.tokens += further - record.recorded_tokens
        record.recorded_requests, record.recorded_tokens = sent, further
        return Entry(record.claim, progress, done=mine.is_last and not record.left)

    def _commit(self, entries: dict[ChunkRecord, Entry]) -> None:
        """Write until it is written, or the database was out of reach for too long."""
        in_doubt: str | None = None  # the transaction that may have been committed, though its answer is lost
        standings: Sequence[Standing] = []
        # when the transaction began that was committed in the end: leases count from then
        asked_at = began_at = tried_at = time.monotonic()
        give_up_at = began_at + PATIENCE_S
        while True:
            try:
                with translating_errors():
                    self._connection = connection = self._connection or self._engine.connect()
                    if in_doubt is not None and was_committed(connection, in_doubt):
                        break
                    in_doubt, asked_at = None, tried_at
                    with connection.begin():
                        recorded = record_entries(connection, list(entries.values()), self._lease_s)
                        standings, in_doubt = recorded.standings, recorded.transaction
                break
            except DatabaseUnavailable as gone:
                self._disconnect()
                if tried_at >= give_up_at:
                    raise
                if tried_at == began_at:
                    log.warning("answers wait for the database", reason=gone.message)
                time.sleep(DATABASE_PAUSE_S)
                tried_at = time.monotonic()
            except Exception:
                self._disconnect()
                raise
        if tried_at > began_at:
            log.info("answers are written again", after_s=round(time.monotonic() - began_at, 1))
        for (record, entry), standing in zip(entries.items(), standings, strict=True):
            if standing is Standing.LOST:
                record.fault = LeaseLostError()
                continue
            record.renewed_at = asked_at
            record.sender.lease_until = asked_at + self._lease_s
            record.wanted = standing is Standing.WANTED
            record.progressed = record.progressed or entry.progress.has_rows
            record.rows += entry.progress.labelled + entry.progress.abstained + entry.progress.failed
            record.tokens += entry.progress.tokens

    def _yield_to_unserved(self) -> None:
        """End one chunk's task early when a batch waits that has none in work: its turn is now, not in some seconds."""
        now = time.monotonic()
        if self._look is None:
            if self._open and now >= self._look_at:
                self._look_at = now + _LOOK_S
                self._look = self._looking.submit(unserved_batch, self._engine)
            return
        if not self._look.done():
            return
        look, self._look = self._look, None
        try:
            if look.result() is None:
                return
        except DatabaseUnavailable:
            return
        in_work = Counter(record.claim.batch_no for record in self._open)
        settled = [record for record in self._open if now - record.claim.claimed_at > _SETTLED_S]
        if settled:
            max(settled, key=lambda one: (in_work[one.claim.batch_no], -one.claim.claimed_at)).sender.stop()

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                connection.invalidate()
                connection.close()
            except Exception:  # noqa: BLE001 - it is broken already
                log.debug("a broken connection to the database was dropped")
