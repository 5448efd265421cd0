"""One supervised process: its command, its log file, its restarts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from labelmill_ops.stack.guard import Guard

_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.5, 30.0
_STEADY_AFTER_S = 30.0  # a child that lived this long starts its next series of pauses from the beginning


class Drain(IntEnum):
    """The order in which children stop: each group has ended before the next is asked to."""

    WORK = 0  #: Workers: they finish what they hold, and need all the rest for it.
    WATCH = 1  #: Flower, the emulator.
    BROKER = 2  #: Redis, which everything else talks to.


@dataclass(frozen=True)
class ChildSpec:
    """What to run. `is_ready` tells when it does its work; `environment` is all it gets."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)  # it holds keys
    is_ready: Callable[[], bool]
    drain: Drain


class Child:
    """A running `ChildSpec`. Its output goes to `log_path`; the log of the run before is kept beside it."""

    def __init__(self, spec: ChildSpec, log_dir: Path, guard: Guard) -> None:
        self.spec = spec
        self.log_path = log_dir / f"{spec.name}.log"
        self.restarts = 0
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None
        self._exit_code: int | None = None
        self._started_at = 0.0
        self._pause_s = _FIRST_PAUSE_S
        self._start_again_at: float | None = None
        if self.log_path.exists():
            self.log_path.replace(self.log_path.with_suffix(".log.1"))

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process in a session of its own: the terminal's Ctrl-C reaches the supervisor alone."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                list(self.spec.command),
                env=dict(self.spec.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._guard.watch(self._process.pid)
        self._exit_code = None
        self._started_at = time.monotonic()

    def exit_code(self) -> int | None:
        """None while it runs, or when it was not started."""
        if self._process is not None and (code := self._process.poll()) is not None:
            # what it had started must not live on beside its successor; asked once, for its id is free from now on
            self._signal_group(self._process.pid)
            self._exit_code, self._process = code, None
        return self._exit_code

    def keep_alive(self) -> str | None:
        """Start it again if it has died, after a pause that doubles. Returns what to tell the operator, if anything."""
        now = time.monotonic()
        if self._start_again_at is not None:
            if now >= self._start_again_at:
                self._start_again_at = None
                self.restarts += 1
                self.start()
            return None
        code = self.exit_code()
        if code is None:
            return None
        if now - self._started_at > _STEADY_AFTER_S:
            self._pause_s = _FIRST_PAUSE_S
        self._start_again_at = now + self._pause_s
        told = f"{self.spec.name} ended ({describe_exit(code)}); starting it again in {self._pause_s:g} s"
        self._pause_s = min(_MAX_PAUSE_S, self._pause_s * 2)
        return told

    def ask_to_end(self) -> None:
        """SIGTERM, to the process alone: it ends its own helpers in its own order."""
        if self._process:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL to the process and everything it started."""
        if self._process:
            self._signal_group(self._process.pid)
            self._process.wait()
            self.exit_code()

    def _signal_group(self, leader: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
        self._guard.forget(leader)

    def last_words(self) -> str:
        """The last line of its log."""
        with contextlib.suppress(OSError):
            lines = self.log_path.read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1].strip()
        return "it said nothing"


def describe_exit(code: int) -> str:
    """An exit code in words: `exit 1`, `SIGKILL`."""
    if code >= 0:
        return f"exit {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
