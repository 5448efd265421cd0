"""Lanes side by side, each with a stack of its own that lives through many seeds."""

from __future__ import annotations

import itertools
import queue
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from command import Saying
from forker import Forker, small_chunks
from proxy import LoopThread
from rig import Rig, open_rig
from scenario import Scenario
from seed_run import Interrupted, Outcome, SeedRun, raised


@dataclass(frozen=True)
class Task:
    """A scenario, and what a producer's command line must say in the middle of it."""

    scenario: Scenario
    command: Saying | None = None
    settable_clock: bool = False


@dataclass(frozen=True)
class Timing:
    """Seconds: the workers' leases and sweeps, and how long recovery may take."""

    lease_s: float
    sweep_s: float
    recovery_s: float


class Lanes:
    """`count` lanes, on the databases of the tasks in turn. What has not begun after `minutes` does not begin."""

    def __init__(self, tasks: Sequence[Task], timing: Timing, count: int, minutes: float) -> None:
        small_chunks()
        self.folder = Path(tempfile.mkdtemp(prefix="labelmill-chaos-"))
        self._timing = timing
        self._until = time.monotonic() + minutes * 60
        self._forker, self._serving = Forker(), LoopThread()
        self._done: queue.SimpleQueue[Outcome | str] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._waiting: dict[str, queue.SimpleQueue[Task]] = {}
        for task in tasks:
            self._waiting.setdefault(task.scenario.database, queue.SimpleQueue()).put(task)
        databases = sorted(self._waiting, reverse=True)  # SQLite's begin sooner: its lanes come first
        self._threads = []
        for number in range(max(len(databases), count)):
            database = databases[number % len(databases)]
            if number // len(databases) < self._waiting[database].qsize():
                name = f"lane{number}"
                self._threads.append(threading.Thread(target=self._run, name=name, args=(name, database)))

    def outcomes(self) -> Iterator[Outcome | str]:
        """The outcome of each task as it ends; as a string, a problem that closing a lane's stack showed."""
        for thread in self._threads:
            thread.start()
        while any(thread.is_alive() for thread in self._threads) or not self._done.empty():
            try:
                yield self._done.get(timeout=0.5)
            except queue.Empty:
                continue
        self._forker.close()
        self._serving.close()

    def stop(self) -> None:
        """End every stack in the middle of what it does."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._forker.close()
        self._serving.close()

    def _run(self, lane: str, database: str) -> None:
        rig: Rig | None = None
        opened = itertools.count()
        try:
            while time.monotonic() < self._until and not self._stopping.is_set():
                try:
                    task = self._waiting[database].get_nowait()
                except queue.Empty:
                    break
                outcome = Outcome(task.scenario)
                try:
                    if rig is not None and task.settable_clock is not (rig.clock is not None):
                        closing, rig = rig, None
                        outcome.problems += closing.close()
                    if rig is None:
                        rig = self._open(f"{lane}-{next(opened)}", database, settable_clock=task.settable_clock)
                    ended = SeedRun(rig, task.scenario, self._timing.recovery_s, task.command, self._stopping).run()
                    outcome = replace(ended, problems=[*outcome.problems, *ended.problems])
                    rig.heal_all()
                except Interrupted:
                    return  # its outcome is not needed any more
                except Exception as error:  # noqa: BLE001 - this seed has failed, and the lane goes on
                    outcome.problems += raised(error)
                if outcome.problems and rig is not None:
                    # what it left may be broken: the next seed gets a stack of its own
                    closing, rig = rig, None
                    outcome.problems += _closed(closing)
                self._done.put(outcome)
        finally:
            if rig is not None:
                for problem in _closed(rig):
                    self._done.put(problem)

    def _open(self, name: str, database: str, *, settable_clock: bool) -> Rig:
        folder = self.folder / name
        rig = open_rig(
            name,
            database,
            folder,
            self._forker,
            self._serving,
            lease_s=self._timing.lease_s,
            sweep_s=self._timing.sweep_s,
            settable_clock=settable_clock,
        )
        try:
            rig.wait_until_ready()
        except Exception:
            _closed(rig)
            raise
        return rig


def _closed(rig: Rig) -> list[str]:
    """End a stack. Returns what went wrong with that."""
    try:
        return rig.close()
    except Exception as error:  # noqa: BLE001 - as above
        return raised(error)
