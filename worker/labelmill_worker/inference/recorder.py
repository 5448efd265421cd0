"""One writer a process: what the requests of all its chunks bring goes to SQL together, a transaction at a time.

A slot is held from the start of a request until its outcome is committed, so a kill costs no more than the slots. While
one transaction runs, the next one's outcomes gather: the busier the process, the larger its transactions.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.core.jobs.leases import RENEWALS_PER_LEASE, LeaseLost
from labelmill.core.money.prices import LISTED, PriceList
from labelmill_worker.inference.chunk_record import ChunkRecord, Gathered
from labelmill_worker.inference.entry_writer import EntryWriter
from labelmill_worker.inference.outcomes import Delivery
from labelmill_worker.inference.sending_window import SendingWindow
from labelmill_worker.inference.unserved_watch import CHECK_EVERY_S, UnservedWatch
from labelmill_worker.store.chunks import Claim
from labelmill_worker.store.progress import Entry

log = structlog.get_logger()

_AT_ONCE = 50  #: Requests. The loop hands over no more at once, and the recorder adds no more to so many in a
#: transaction: at most ten thousand rows, whose packing takes memory.
_LINGER_S = 0.001  #: A single outcome waits for others: a transaction costs as much as writing a hundred rows.
_SETTLED_S = 1.0  #: A chunk that was claimed just now does not yield.

Delivered = tuple[ChunkRecord, Delivery]
"""What a chunk's requests brought, and the record that it belongs to."""


@dataclass(frozen=True, slots=True)
class LoopUpdate:
    """What the event loop learns from a transaction: slots that are free again, windows whose lease was renewed, until
    when, and windows that close."""

    slots: int
    renewed: Sequence[tuple[SendingWindow, float]] = ()
    closed: Sequence[SendingWindow] = ()


class Recorder:
    """Takes deliveries from any thread and writes them in a thread of its own. `notify_loop` is called there
    with what the loop must know."""

    def __init__(
        self,
        engine: Engine,
        lease_s: float,
        notify_loop: Callable[[LoopUpdate], None],
        prices: PriceList = LISTED,
    ) -> None:
        self._lease_s = lease_s
        self._notify_loop = notify_loop
        self._arrived: queue.SimpleQueue[Sequence[Delivered] | None] = queue.SimpleQueue()
        self._open: set[ChunkRecord] = set()  # touched by the recorder's thread alone
        self._writer = EntryWriter(engine, lease_s, prices)
        self._unserved = UnservedWatch(engine)
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def open(self, claim: Claim, rows_left: Iterable[int], window: SendingWindow) -> ChunkRecord:
        """Keep the chunk's lease from now on, until its last delivery. `rows_left`: those without an outcome."""
        record = ChunkRecord(claim, rows_left, window)
        self.put(record, Delivery(()))
        return record

    def put(self, record: ChunkRecord, delivery: Delivery) -> None:
        """Record what was delivered."""
        self._arrived.put([(record, delivery)])

    def put_all(self, delivered: Sequence[Delivered]) -> None:
        """The same of several: the thread wakes once for all of them."""
        for start in range(0, len(delivered), _AT_ONCE):
            self._arrived.put(delivered[start : start + _AT_ONCE])

    def close(self) -> None:
        """Stop, once what has arrived is written."""
        self._arrived.put(None)
        self._thread.join()
        self._unserved.close()

    def _run(self) -> None:
        while True:
            try:
                if self._write_what_comes():
                    self._writer.disconnect()
                    return
            except Exception:
                # the thread must outlive a fault of ours: every chunk of the process waits for it
                log.exception("recording failed")

    def _write_what_comes(self) -> bool:
        """Wait for deliveries and write them. Returns whether to stop. Holds on to nothing while it waits again."""
        items, is_stopping = self._take()
        self._record(self._gather(items))
        self._yield_to_unserved()
        return is_stopping

    def _take(self) -> tuple[list[Delivered], bool]:
        """What has arrived, at the latest when a lease is due."""
        items: list[Delivered] = []
        try:
            renews_in_s = self._lease_s / RENEWALS_PER_LEASE
            patience_s = min(CHECK_EVERY_S if self._unserved.is_checking else 1.0, renews_in_s / 2)
            arrived = self._arrived.get(timeout=patience_s if self._open else None)
            if arrived is not None and len(arrived) == 1 and not self._arrived.qsize():
                time.sleep(_LINGER_S)
            while arrived is not None:
                items += arrived
                if len(items) >= _AT_ONCE:
                    return items, False
                arrived = self._arrived.get_nowait()
        except queue.Empty:
            return items, False
        return items, True

    def _gather(self, items: list[Delivered]) -> dict[ChunkRecord, Gathered]:
        gathered_of: dict[ChunkRecord, Gathered] = {}
        for record, delivery in items:
            self._open.add(record)
            gathered = gathered_of.get(record)
            if gathered is None:
                gathered = gathered_of[record] = Gathered()
            record.gather(gathered, delivery)
        due = time.monotonic() - self._lease_s / RENEWALS_PER_LEASE
        for record in self._open:
            if record.renewed_at < due:
                gathered_of.setdefault(record, Gathered())
        return gathered_of

    def _record(self, gathered_of: dict[ChunkRecord, Gathered]) -> None:
        renewed: list[tuple[SendingWindow, float]] = []
        try:
            news = {record: gathered for record, gathered in gathered_of.items() if _has_news(record, gathered)}
            renewed = [(record.window, record.renewed_at + self._lease_s) for record in self._write(news)]
        finally:
            closed = [record.window for record in gathered_of if record.is_over]
            slots = sum(gathered.slots for gathered in gathered_of.values())
            if slots or renewed or closed:
                self._notify_loop(LoopUpdate(slots, renewed, closed))
            for record, gathered in gathered_of.items():
                if gathered.is_last:
                    self._open.discard(record)
                    record.end()

    def _write(self, gathered_of: dict[ChunkRecord, Gathered]) -> list[ChunkRecord]:
        """One transaction for all. A chunk that makes it fail is left out of a second one. Returns what was written."""
        entries: dict[ChunkRecord, Entry] = {}
        for record, gathered in gathered_of.items():
            try:
                entries[record] = record.entry(gathered)
            except Exception as fault:  # noqa: BLE001 - it is raised again where the chunk is worked on
                record.fault = fault
        if not entries:
            return []
        try:
            self._commit(entries)
        except Exception as fault:  # noqa: BLE001 - as above
            if len(entries) == 1 or isinstance(fault, DatabaseUnavailable):
                for record in entries:
                    record.fault = fault
                return []
            for record, entry in entries.items():
                try:
                    self._commit({record: entry})
                except Exception as fault_of_chunk:  # noqa: BLE001 - as above
                    record.fault = fault_of_chunk
        return [record for record in entries if record.fault is None]

    def _commit(self, entries: dict[ChunkRecord, Entry]) -> None:
        written = self._writer.write(list(entries.values()))
        for (record, entry), standing in zip(entries.items(), written.standings, strict=True):
            record.committed(entry, standing, written.asked_at)

    def _yield_to_unserved(self) -> None:
        """End one chunk's task early when a batch waits that has no chunk in work: it is served now, not seconds
        later."""
        if not self._unserved.found_batch(may_check=bool(self._open)):
            return
        in_work = Counter(record.claim.batch_no for record in self._open)
        now = time.monotonic()
        settled = [record for record in self._open if now - record.claim.claimed_at > _SETTLED_S]
        if settled:
            chosen = max(settled, key=lambda record: (in_work[record.claim.batch_no], -record.claim.claimed_at))
            self._notify_loop(LoopUpdate(0, closed=[chosen.window]))


def _has_news(record: ChunkRecord, gathered: Gathered) -> bool:
    """Whether the chunk has a part in the next transaction: rows, its end, or a lease to renew."""
    if isinstance(record.fault, LeaseLost):
        return record.has_unrecorded_usage  # nobody else records what answers cost that come too late
    return record.fault is None and bool(
        gathered.answers or gathered.failures or gathered.is_last or not gathered.slots
    )
