"""What delays the work of this process: written to SQL, where `status` reads it, and once a minute to the log.

Without a delay this costs one check of an empty dictionary. A delay is reported once it has lasted some seconds, and is
written again every few seconds while it lasts, by a thread that runs only then.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import (
    BrokerUnavailable,
    LabelmillError,
    RateLimited,
    RemoteUnavailable,
    StorageUnavailable,
)
from labelmill.core.jobs.delays import DelayReason, describe_delay
from labelmill_worker.mistral.ratelimit.model_limiter import NoPermitInTime
from labelmill_worker.process.ability import WORKER_ID
from labelmill_worker.store.delays import end_delay, note_delay

log = structlog.get_logger()

REPORTED_AFTER_S = 3.0  #: Shorter delays are not reported.
_WRITTEN_EVERY_S = 10.0
VALID_S = 90.0  #: A task without progress is tried again within a minute: until then the delay lasts.
_LOGGED_EVERY_S = 60.0
_CHECK_EVERY_S = 1.0


def reason_of(error: Exception) -> DelayReason | None:
    """The kind of delay that a fault causes; None: it causes none."""
    if isinstance(error, RemoteUnavailable):
        return DelayReason.MISTRAL
    if isinstance(error, RateLimited | NoPermitInTime):
        return DelayReason.RATE_LIMIT
    if isinstance(error, StorageUnavailable):
        return DelayReason.STORAGE
    return DelayReason.REDIS if isinstance(error, BrokerUnavailable) else None


def note_storage_fault(engine: Engine, job_id: str, error: LabelmillError, valid_s: float = VALID_S) -> None:
    """Report for so long that a job waits for the storage of files; nothing where the fault is another one."""
    if isinstance(error, StorageUnavailable):
        with contextlib.suppress(LabelmillError):  # the database is away too
            note_delay(engine, WORKER_ID, job_id, DelayReason.STORAGE, error.message, since_s=0.0, valid_s=valid_s)


@dataclass
class _Delay:
    reason: DelayReason
    message: str
    since: float  #: As the next ones, by the monotonic clock.
    last: float
    written: float | None = None
    logged: float | None = None
    is_over: bool = False


class Delays:
    """One for each process, or for a thread that runs by itself. Any thread may report; one at a time may `flush`."""

    def __init__(
        self,
        engine: Engine,
        worker_id: str = WORKER_ID,
        *,
        clock: Callable[[], float] = time.monotonic,
        is_logged: bool = True,
    ) -> None:
        self._engine, self._worker_id, self._clock, self._is_logged = engine, worker_id, clock, is_logged
        self._delays: dict[str, _Delay] = {}
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def blocked(self, subject: str, error: Exception) -> None:
        """A request, or another step for the subject, met a temporary fault."""
        reason = reason_of(error)
        if reason is None:
            return
        with self._lock:
            now, current = self._clock(), self._delays.get(subject)
            if current is not None and current.reason is reason and not current.is_over:
                current.last = now
                return
            since, written = now, current.written if current is not None else None
            message = error.message if isinstance(error, LabelmillError | NoPermitInTime) else ""
            self._delays[subject] = _Delay(reason, message, since, now, written and 0.0)

    def resumed(self, subject: str) -> None:
        """A step for the subject succeeded."""
        if self._delays and (delay := self._delays.get(subject)) is not None:
            delay.is_over = True

    def keep_written(self) -> None:
        """Have reported delays written, by a thread that runs while there are any."""
        if not self._delays or self._ended.is_set():
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="delays", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """Write nothing more. For a process that shuts down."""
        self._ended.set()
        thread = self._thread
        if thread is not None:
            thread.join(2 * _CHECK_EVERY_S)

    def _run(self) -> None:
        while not self._ended.wait(_CHECK_EVERY_S):
            self.flush()
            with self._lock:
                if not self._delays:
                    self._thread = None
                    return

    def flush(self) -> None:
        """Write and log what is due."""
        with self._flushing:
            for subject, delay in list(self._delays.items()):
                try:
                    self._flush(subject, delay, self._clock())
                except LabelmillError as error:
                    log.debug("a delay was not written", reason=error.message)  # the database is away

    def _flush(self, subject: str, delay: _Delay, now: float) -> None:
        if delay.is_over or now - delay.last > VALID_S:
            if delay.written is not None:
                end_delay(self._engine, self._worker_id, subject)
            if delay.logged is not None and delay.is_over:
                log.info("work goes on", waited_for=delay.reason.value, after_s=round(now - delay.since, 1))
            with self._lock:
                if self._delays.get(subject) is delay:
                    del self._delays[subject]
            return
        lasted_s = now - delay.since
        if lasted_s < REPORTED_AFTER_S:
            return
        if self._is_logged and (delay.logged is None or now - delay.logged >= _LOGGED_EVERY_S):
            since = datetime.now(UTC) - timedelta(seconds=lasted_s)
            log.warning("work waits", reason=describe_delay(delay.reason, delay.message, since), subject=subject)
            delay.logged = now
        if delay.written is None or now - delay.written >= _WRITTEN_EVERY_S:
            note_delay(
                self._engine, self._worker_id, subject, delay.reason, delay.message, since_s=lasted_s, valid_s=VALID_S
            )
            delay.written = now


class SubjectDelays:
    """The delays of one subject, for the code that works on it. Any thread may report."""

    def __init__(self, delays: Delays, subject: str) -> None:
        self._delays, self._subject = delays, subject

    def blocked(self, error: Exception) -> None:
        """A step met a temporary fault."""
        self._delays.blocked(self._subject, error)
        self._delays.keep_written()

    def resumed(self) -> None:
        """A step succeeded."""
        self._delays.resumed(self._subject)
