"""A circuit breaker: when Mistral as a whole fails, a process sends nothing for a growing pause, and then one probe.

Each request has its own retries; the breaker keeps a thousand of them from becoming a retry storm. One request's fault
proves nothing (a row that cannot be answered, a cut connection): only many in a row, without one good answer, do.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from labelmill.contracts.errors import LabelmillError, MalformedAnswer, RemoteUnavailable

FAULTS_IN_A_ROW = 10  #: Then the circuit opens.
FIRST_PAUSE_S = 1.0  #: Doubles with every probe that fails; jitter takes up to half of it off.
MAX_PAUSE_S = 30.0
_PROBE_S = 60.0  # a probe without an outcome by then counts as lost


class CircuitBreaker:
    """Ask `check` before a request and tell it the outcome. Any thread may."""

    def __init__(
        self,
        faults_in_a_row: int = FAULTS_IN_A_ROW,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._faults_in_a_row = faults_in_a_row
        self._clock = clock
        self._rng = rng or random.Random()
        self._lock = threading.Lock()
        self._faults = 0
        self._latest_fault = ""
        self._pause_s = 0.0
        self._open_until = 0.0
        self._probing_until = 0.0

    def check(self) -> None:
        """Let a request start. Raises RemoteUnavailable with the pause that is left; after it one request may probe."""
        if self._faults < self._faults_in_a_row:
            return
        with self._lock:
            now = self._clock()
            wait_s = max(self._open_until, self._probing_until) - now
            if wait_s <= 0:
                self._probing_until = now + _PROBE_S
                return
            if self._open_until <= now:
                wait_s = FIRST_PAUSE_S  # a probe is under way
        raise RemoteUnavailable(
            f"{self._latest_fault} (for {self._faults} requests in a row: none is sent for a while)", wait_s
        )

    def record(self, error: LabelmillError | None) -> None:
        """Record a request's outcome. A refusal is an answer too: the service is there. A malformed answer says
        neither, for it may be one text's own: the next request may probe in its place."""
        if isinstance(error, MalformedAnswer):
            self.abandon()
            return
        if not isinstance(error, RemoteUnavailable):
            if self._faults:
                self._close()
            return
        with self._lock:
            self._faults += 1
            self._latest_fault = error.message  # the reason that delayed requests report
            now = self._clock()
            if self._faults < self._faults_in_a_row or now < self._open_until:
                return  # the latter: it was under way when the circuit opened
            self._pause_s = min(MAX_PAUSE_S, self._pause_s * 2 or FIRST_PAUSE_S)
            self._open_until = now + self._rng.uniform(self._pause_s / 2, self._pause_s)
            self._probing_until = 0.0

    def abandon(self) -> None:
        """A request that was let start told nothing of Mistral: if it was the probe, the next one probes."""
        if self._probing_until:
            with self._lock:
                self._probing_until = 0.0

    def _close(self) -> None:
        with self._lock:
            self._faults, self._pause_s, self._open_until, self._probing_until = 0, 0.0, 0.0, 0.0
