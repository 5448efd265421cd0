"""Recovery in a worker process: a thread of its own that sweeps whenever the fleet is due for a sweep.

It waits behind no task, whatever the pool and the queues of the worker, and shares no connection with tasks: those may
all be in use, and a prefork child must not find its parent's. It goes by the monotonic clock; which process sweeps is
decided by a lease in SQL. A database or a Redis that is away is waited for, and costs a line in the log, not one a try.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import BrokerUnavailable, LabelmillError
from labelmill.core.database import RECOVERY_CONNECTIONS, check_tables, connect_to_existing, writing
from labelmill.core.jobs.delays import REDIS_SUBJECT
from labelmill.core.queue.sender import MessageSender
from labelmill.core.reported_limits import keep_limits
from labelmill.core.settings import Settings
from labelmill_worker.mistral.ratelimit.reading import read_reported
from labelmill_worker.process.delays import Delays
from labelmill_worker.runtime.recovery.model_list import ModelListReader
from labelmill_worker.runtime.recovery.sweep import LEASE, sweep
from labelmill_worker.runtime.recovery.waiting import WaitingMessages
from labelmill_worker.store.locks import Held, Taken, release_lease, take_lease
from labelmill_worker.store.workers import unserved_queues

log = structlog.get_logger()

_FIRST_S = 0.5  #: The first try comes within so much of a worker's start …
_TOLD_EVERY_S = 60.0
_LIMITS_EVERY_S = 10.0
_JITTER = 0.1  #: … and every later one by up to this share of the interval late, so that a fleet does not ask as one.


class RecoveryThread:
    """Sweeps from `start` to `stop`."""

    def __init__(
        self, settings: Settings, *, rng: random.Random | None = None, sweep: Callable[..., None] = sweep
    ) -> None:
        self._settings = settings
        self._rng = rng or random.Random()
        self._sweep = sweep
        self._engine: Engine | None = None
        self._sender: MessageSender | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lease: Taken | None = None
        self._trouble: str | None = None
        self._trouble_since = 0.0
        self._told = 0.0
        self._unserved_looked_at = self._limits_kept_at = 0.0
        self._delays: Delays | None = None
        self._models = ModelListReader(settings)

    def start(self) -> None:
        """Begin; returns at once, whatever is out of reach."""
        self._thread = threading.Thread(target=self._run, name="recovery", daemon=True)
        self._thread.start()

    def stop_soon(self) -> None:
        """No sweep begins any more, and one that is under way ends early. Returns at once."""
        self._stopping.set()

    def stop(self, timeout_s: float) -> None:
        """Stop, and wait for it, at most `timeout_s`: a database that is away may keep it longer."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        pause_s = self._rng.uniform(0, min(_FIRST_S, self._settings.sweep_s))
        while not self._stopping.wait(pause_s):
            pause_s = self._try()
        if self._lease is not None and self._engine is not None:
            with contextlib.suppress(LabelmillError):  # it runs out by itself
                release_lease(self._engine, LEASE, self._lease.token)
        if self._engine is not None:
            self._engine.dispose()

    def _try(self) -> float:
        """Sweep if a sweep is due. Returns when to try again, in seconds."""
        due_in_s = every_s = self._settings.sweep_s
        try:
            engine, sender = self._open()
            lease = take_lease(engine, LEASE, every_s)
            if isinstance(lease, Held):
                self._lease, due_in_s = None, min(every_s, lease.for_s)
            else:
                self._lease = lease
                self._sweep(engine, sender, self._settings, lease, is_stopping=self._stopping.is_set)
            if self._trouble == BrokerUnavailable.code:
                # not every sweep needs Redis: without this question an outage would seem to end with each that does not
                _ = WaitingMessages(self._settings.broker_url).for_chunks
            self._warn_of_unserved_queues(engine)
            self._models.read_if_due(engine)
            self._keep_reported_limits(engine)
        except LabelmillError as error:
            self._begin_trouble(error.code, error.message)
            if isinstance(error, BrokerUnavailable) and self._delays is not None:
                self._delays.blocked(REDIS_SUBJECT, error)
                self._delays.flush()
        except Exception as fault:  # noqa: BLE001 - recovery outlives whatever it is
            self._begin_trouble(type(fault).__name__, "an unexpected fault", with_traceback=True)
        else:
            self._end_trouble()
        return due_in_s + self._rng.uniform(0, _JITTER * every_s)

    def _open(self) -> tuple[Engine, MessageSender]:
        """What a sweep works with, once the database has its tables."""
        if self._engine is None or self._sender is None:
            engine = connect_to_existing(self._settings, max_connections=RECOVERY_CONNECTIONS)
            try:
                check_tables(engine)
            except BaseException:
                engine.dispose()
                raise
            self._delays = Delays(engine, is_logged=False)
            self._engine, self._sender = engine, MessageSender.connect(self._settings)
        return self._engine, self._sender

    def _keep_reported_limits(self, engine: Engine) -> None:
        """Now and then: what answers told of limits, which Redis keeps for two minutes."""
        now = time.monotonic()
        if self._lease is None or now - self._limits_kept_at < _LIMITS_EVERY_S:
            return
        self._limits_kept_at = now
        if told := read_reported(self._settings):
            with writing(engine) as connection:
                keep_limits(connection, told)

    def _warn_of_unserved_queues(self, engine: Engine) -> None:
        """Once a minute: work waits in a queue that no worker serves."""
        now = time.monotonic()
        if self._lease is None or now - self._unserved_looked_at < _TOLD_EVERY_S:
            return
        self._unserved_looked_at = now
        for queue in unserved_queues(engine):
            log.warning("work waits", reason=f"no worker serves the queue {queue}: start one with -Q {queue}")

    def _begin_trouble(self, code: str, reason: str, *, with_traceback: bool = False) -> None:
        now = time.monotonic()
        if code != self._trouble:
            self._trouble, self._trouble_since, self._told = code, now, 0.0
        if not self._told or now - self._told >= _TOLD_EVERY_S:
            since = datetime.now(UTC) - timedelta(seconds=now - self._trouble_since)
            log.warning(
                "recovery waits", reason=reason, since=f"{since:%H:%M} UTC", exc_info=with_traceback and not self._told
            )
            self._told = now

    def _end_trouble(self) -> None:
        if self._trouble is not None:
            if self._delays is not None:
                self._delays.resumed(REDIS_SUBJECT)
                self._delays.flush()
            log.info("recovery goes on", after_s=round(time.monotonic() - self._trouble_since, 1))
            self._trouble = None
