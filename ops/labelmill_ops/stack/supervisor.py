"""Keeps children alive until it is told to stop, then drains them in order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from labelmill.contracts.errors import LabelmillError
from labelmill_ops.stack.child import Child, ChildSpec, Drain, describe_exit
from labelmill_ops.stack.guard import Guard

_CHECK_EVERY_S = 0.1
_SIDE_GRACE_S = 8.0  # Flower, emulator, Redis: nothing of theirs takes longer
_GUARD_GRACE_S = 5.0


class StartFailed(LabelmillError):
    """A child did not get to work."""

    code = "start_failed"


class StopRequested(Exception):
    """Ctrl-C or SIGTERM came before everything was ready."""


class Supervisor:
    """Starts, watches and ends children. Its methods are called from one thread.

    `tell` shows one line to the operator. `on_look` runs some ten times a second while children are watched.
    """

    def __init__(
        self, log_dir: Path, tell: Callable[[str], None], on_look: Callable[[list[Child]], None] | None = None
    ) -> None:
        log_dir.mkdir(parents=True, exist_ok=True)
        self._log_dir = log_dir
        self._tell = tell
        self._on_look = on_look or (lambda _: None)
        self._guard = Guard(_GUARD_GRACE_S)
        self._stops_asked = 0
        self.children: list[Child] = []

    @contextmanager
    def listening_for_signals(self) -> Iterator[None]:
        """Count Ctrl-C, SIGTERM and SIGHUP (a closed terminal) instead of dying of them."""

        def count(number: int, frame: FrameType | None) -> None:
            del number, frame
            self._stops_asked += 1

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, count) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self, specs: Iterable[ChildSpec], timeout_s: float) -> None:
        """Start children side by side and wait until each is ready. Raises StartFailed, StopRequested."""
        waiting = []
        for spec in specs:
            child = Child(spec, self._log_dir, self._guard)
            child.start()
            self.children.append(child)
            waiting.append(child)
        deadline = time.monotonic() + timeout_s
        while waiting:
            for child in waiting:
                if (code := child.exit_code()) is not None:
                    raise StartFailed(
                        f"{child.spec.name} did not start ({describe_exit(code)}): {child.last_words()} "
                        f"(see {child.log_path})"
                    )
            waiting = [child for child in waiting if not child.spec.is_ready()]
            if self._stops_asked:
                raise StopRequested
            if waiting and time.monotonic() > deadline:
                names = ", ".join(child.spec.name for child in waiting)
                raise StartFailed(f"not ready after {timeout_s:g} s: {names} (see {self._log_dir})")
            self._on_look(self.children)
            time.sleep(_CHECK_EVERY_S)

    def watch(self) -> None:
        """Keep every child alive until a stop is requested."""
        while not self._stops_asked:
            for child in self.children:
                if told := child.keep_alive():
                    self._tell(told)
            self._on_look(self.children)
            time.sleep(_CHECK_EVERY_S)

    def drain(self, work_timeout_s: float) -> None:
        """End all children, workers first and Redis last. Another Ctrl-C kills what is left."""
        patience = self._stops_asked
        for group in Drain:
            members = [child for child in self.children if child.spec.drain is group]
            for child in members:
                child.ask_to_end()
            deadline = time.monotonic() + (work_timeout_s if group is Drain.WORK else _SIDE_GRACE_S)
            while alive := [child for child in members if child.pid and child.exit_code() is None]:
                self._on_look(self.children)
                if self._stops_asked > patience or time.monotonic() > deadline:
                    why = "asked twice" if self._stops_asked > patience else "it took too long"
                    self._tell(f"killing {', '.join(child.spec.name for child in alive)}: {why}")
                    for child in alive:
                        child.kill()
                    break
                time.sleep(_CHECK_EVERY_S / 2)
        self._guard.close()
