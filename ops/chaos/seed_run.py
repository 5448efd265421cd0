"""One seed on one lane: jobs are submitted, faults come and go by the schedule, everything must end, and is checked."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from command import Commanded, Saying
from faults import all_faults
from invariants import findings, left_in_redis, open_chunks
from money import paid_twice
from pipeline import Pipeline, make_work
from preparations import Preparations
from rig import Rig
from scenario import Injection, Scenario
from workload import Work

from labelmill.contracts.errors import DatabaseUnavailable, LabelmillError, Permanent

_TICK_S = 0.05
_CHECK_EVERY_S = 0.25
_FRAMES_SHOWN = 6


@dataclass
class Outcome:
    """What came of a seed."""

    scenario: Scenario
    problems: list[str] = field(default_factory=list)
    took_s: float = 0.0
    settled_s: float = 0.0  #: From the end of the last fault to the end of every job.
    resumed_s: float | None = None  #: From there to the first row recorded.
    paid_twice: int = 0
    spoilt: int = 0
    lost_slots: int = 0
    notes: list[str] = field(default_factory=list)  #: What a reader may want to know.
    unborn: list[str] = field(default_factory=list)  #: Faults that never began: everything had ended before.


class Interrupted(Exception):
    """Somebody wants the run to end now."""


def raised(error: Exception) -> list[str]:
    """What the harness raised and where, as problems of a seed."""
    at = traceback.extract_tb(error.__traceback__)
    return [
        f"the harness raised {type(error).__name__}: {error}",
        *(f"  {Path(frame.filename).name}:{frame.lineno} {frame.name}: {frame.line}" for frame in at[-_FRAMES_SHOWN:]),
    ]


@dataclass
class _Underway:
    """A fault that has begun."""

    ends_at: float
    heal: Callable[[], None]


class SeedRun:
    """`recovery_s`: from the end of the last fault to the end of every job, at most. `command`: what a producer's
    command line must say in the middle of the first fault."""

    def __init__(
        self, rig: Rig, scenario: Scenario, recovery_s: float, command: Saying | None, stopping: threading.Event
    ) -> None:
        self._rig = rig
        self._stopping = stopping
        self._command = command
        self._scenario = scenario
        faults = all_faults()
        longer_s = [faults[one.fault].recovery_s for one in scenario.injections if one.fault in faults]
        self._recovery_s = recovery_s + max(longer_s, default=0.0)
        self._rows_seen: dict[str, int] = {}
        self._check_at = 0.0
        self._progress_at: float | None = None
        self._problems: list[str] = []
        self._unborn: list[str] = []
        self._step_began: list[float] = []  #: When each step of the first pipeline was submitted, or first tried.
        self._moved_at = time.monotonic()  #: The end of the last fault, or the beginning of a step.

    def run(self) -> Outcome:
        """Run the seed and check its outcome. Raises Interrupted; anything else that the harness raises is a
        problem of the outcome."""
        began, outcome = time.monotonic(), Outcome(self._scenario, self._problems)
        try:
            self._run(outcome)
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - a seed that proves nothing has failed, and the lane goes on
            self._problems += raised(error)
        self._problems += self._rig.findings
        outcome.took_s = time.monotonic() - began
        return outcome

    def _run(self, outcome: Outcome) -> None:
        rig, scenario = self._rig, self._scenario
        rig.mistral.reset(scenario.rng("mistral"))
        rig.lost_slots, rig.findings, rig.doomed, rig.broken_at, rig.notes = 0, [], False, 0.0, []
        works = [
            make_work(kind, rig, f"s{scenario.seed}-{number}", scenario.rng(f"work {number}"))
            for number, kind in enumerate(scenario.work)
        ]
        for work in works:
            if isinstance(work, Preparations):
                work.beside = [other for other in works if other is not work]
        if self._command is not None:
            works.append(Commanded(rig, f"s{scenario.seed}-cli", scenario.rng("command"), self._command))
        last_heal = self._play(works)
        settled = self._settle(works, last_heal)
        outcome.settled_s = max(0.0, time.monotonic() - last_heal)
        if self._progress_at is not None and self._progress_at > last_heal:
            outcome.resumed_s = self._progress_at - last_heal
        if settled:
            self._problems += findings(rig, works) + self._redis_is_clean()
            outcome.paid_twice = sum(paid_twice(rig, works).values())
        outcome.unborn, outcome.notes = self._unborn, rig.notes
        outcome.spoilt, outcome.lost_slots = sum(rig.mistral.counts.spoilt.values()), rig.lost_slots

    def _play(self, works: list[Work]) -> float:
        """Let the faults begin and end. Returns when the last one ended."""
        rig, rng = self._rig, self._scenario.rng("faults")
        due, underway = list(self._scenario.injections), list[_Underway]()
        last_heal = self._moved_at = time.monotonic()
        while (due and not self._nothing_comes(works)) or underway:
            self._tick(works)
            now = time.monotonic()
            while due and self._is_due(due[0], now):
                injection = due.pop(0)
                heal = self._begin(injection, rng)
                rig.broken_at = rig.broken_at or now
                self._moved_at = last_heal = time.monotonic()
                if heal is not None:
                    underway.append(_Underway(now + injection.lasts_s, heal))
            for one in [one for one in underway if one.ends_at <= now and self._heals(one)]:
                underway.remove(one)
                self._moved_at = last_heal = time.monotonic()
                self._progress_at = None
        self._unborn += [injection.fault for injection in due]
        return last_heal

    def _begin(self, injection: Injection, rng: object) -> Callable[[], None] | None:
        try:
            return all_faults()[injection.fault].begin(self._rig, rng)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - a fault may meet what another one broke
            print(f"  ({injection.fault} could not be injected: {type(error).__name__})", file=sys.stderr)
            self._unborn.append(injection.fault)
            return None

    def _heals(self, one: _Underway) -> bool:
        """Whether a fault has ended. Its end may need a server that another fault has just taken away: then it is tried
        again at the next tick, until that one has ended too. Raises what still stands in the way after a while."""
        try:
            one.heal()
        except Exception:
            if time.monotonic() - one.ends_at > self._recovery_s:
                raise
            return False
        return True

    def _is_due(self, injection: Injection, now: float) -> bool:
        return injection.step < len(self._step_began) and now >= self._step_began[injection.step] + injection.at_s

    def _nothing_comes(self, works: list[Work]) -> bool:
        """Whether the step that a fault waits for will not come: everything has ended, or stands still."""
        return all(work.ended for work in works) or time.monotonic() - self._moved_at > self._recovery_s

    def _note_steps(self, works: list[Work]) -> None:
        pipeline = next((work for work in works if isinstance(work, Pipeline)), None)
        steps = 1 if pipeline is None else max(1, len(pipeline.jobs))
        while len(self._step_began) < steps:
            self._step_began.append(time.monotonic())
            self._moved_at = time.monotonic()

    def _settle(self, works: list[Work], last_heal: float) -> bool:
        """Wait until everything has ended. Says what has not."""
        while not all(work.ended for work in works):
            self._tick(works)
            if time.monotonic() - max(last_heal, self._moved_at) > self._recovery_s:
                for work in works:
                    if work.ended:
                        continue
                    states = {job: self._rig.status(job)["state"] for job in work.jobs}
                    after = f"{self._recovery_s:g} s after the last fault or step"
                    self._problems.append(f"{work.name} has not ended {after}: {states}")
                    self._problems += [f"  {batch}: {open_chunks(self._rig, batch)}" for batch in work.truth]
                self._problems.append(f"logs are in {self._rig.folder}")
                return False
        return True

    def _tick(self, works: list[Work]) -> None:
        if self._stopping.is_set():
            raise Interrupted
        rig = self._rig
        rig.keep_alive()
        now = time.monotonic()
        if now >= self._check_at:
            self._check_at = now + _CHECK_EVERY_S
            for work in works:
                if not work.ended:
                    self._advance(work)
            self._note_steps(works)
            self._check_sums(works)
        time.sleep(_TICK_S)

    def _advance(self, work: Work) -> None:
        try:
            work.advance()
        except Permanent as error:
            if "cannot be written" not in error.message and "full" not in error.message:
                self._problems.append(f"{work.name}: the producer was told {error.message!r}")
                work.ended = True
        except LabelmillError:
            pass  # a clear answer; a producer tries again
        except Exception as error:  # noqa: BLE001 - that is the finding
            self._problems.append(f"{work.name}: the producer got {type(error).__name__}: {error}")
            work.ended = True

    def _check_sums(self, works: list[Work]) -> None:
        """`status` adds up at every moment, and nothing that was answered is unanswered again."""
        for work in works:
            for batch in work.truth:
                try:
                    rows = self._rig.status(batch)["rows"]
                except DatabaseUnavailable:
                    continue
                if rows["submitted"] != sum(count for name, count in rows.items() if name != "submitted"):
                    self._problems.append(f"{batch}: the sums of {rows} do not hold")
                if min(rows.values()) < 0:
                    self._problems.append(f"{batch}: {rows}")
                ended = rows["labelled"] + rows["abstained"] + rows["failed"]
                if ended < self._rows_seen.get(batch, 0):
                    self._problems.append(f"{batch}: {self._rows_seen[batch]} rows had ended, then {ended}")
                if ended > self._rows_seen.get(batch, 0) and self._progress_at is None:
                    self._progress_at = time.monotonic()
                self._rows_seen[batch] = max(ended, self._rows_seen.get(batch, 0))

    def _redis_is_clean(self) -> list[str]:
        deadline = time.monotonic() + 15
        while True:
            left = left_in_redis(self._rig, 2 * len(self._scenario.injections) + 4)
            if not left or time.monotonic() > deadline:
                break
            self._rig.keep_alive()
            time.sleep(0.2)
        with self._rig.admin() as client:
            client.flushall()  # a seed starts with an empty Redis, or its number would not tell all
        return left
