"""Seeded random faults against whole stacks, and the promises checked from outside.

    python ops/chaos/run.py --seeds 100              # seeds 0 to 99, stopped after --minutes 20
    python ops/chaos/run.py --seed 17                # one seed again
    python ops/chaos/run.py --seed 17 --fault "FLUSHALL"
    python ops/chaos/run.py --faults                 # lists them

Several lanes run side by side, each with a stack of its own that lives through many seeds: database, Redis, a stand-in
for Mistral, two worker processes, beat. Of one seed: jobs are submitted, faults begin and end by the schedule, every
job must end within `RECOVERY_S` of the last one's end, and then `invariants` looks at everything. Exit 1: a promise
broke.
"""

from __future__ import annotations

import argparse
import json
import logging
import queue
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from faults import all_faults
from forker import Forker
from invariants import findings, left_in_redis, open_chunks
from proxy import LoopThread
from rig import Rig, open_rig
from scenario import Scenario, scenario_of
from workload import Work, make_work, small_chunks

from labelmill.contracts.errors import DatabaseUnavailable, LabelmillError, Permanent
from labelmill_ops.embedded_postgres import find_programs

RECOVERY_S = (
    60.0  #: From the end of the last fault to the end of every job, with a lease of 2 s and a sweep each second.
)
_TICK_S = 0.05
_LOOK_EVERY_S = 0.25


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
    allowed: int = 0


class SeedRun:
    """One seed on one lane."""

    def __init__(self, rig: Rig, scenario: Scenario) -> None:
        self._rig = rig
        self._scenario = scenario
        self._deaths = 0
        self._rows_seen: dict[str, int] = {}
        self._look_at = 0.0
        self._progress_at: float | None = None
        self._problems: list[str] = []

    def run(self) -> Outcome:
        rig, scenario = self._rig, self._scenario
        rig.mistral.reset(scenario.rng("mistral"))
        rig.allowed_twice, rig.findings = 0, []
        works = [
            make_work(kind, rig, f"s{scenario.seed}-{number}", scenario.rng(f"work {number}"))
            for number, kind in enumerate(scenario.work)
        ]
        began = time.monotonic()
        last_heal = self._play(works, began)
        settled = self._settle(works, last_heal)
        outcome = Outcome(scenario, self._problems, took_s=time.monotonic() - began)
        outcome.settled_s = max(0.0, time.monotonic() - last_heal)
        if self._progress_at is not None and self._progress_at > last_heal:
            outcome.resumed_s = self._progress_at - last_heal
        if settled:
            self._problems += findings(rig, works) + self._redis_is_clean()
        self._problems += rig.findings
        twice = sum(times - 1 for times in rig.mistral.counts.billed.values() if times > 1)
        outcome.paid_twice, outcome.spoilt, outcome.allowed = twice, rig.mistral.counts.spoilt, rig.allowed_twice
        return outcome

    def _play(self, works: list[Work], began: float) -> float:
        """Let the faults begin and end. Returns when the last one ended."""
        rig, faults = self._rig, all_faults()
        rng = self._scenario.rng("faults")
        due = [(began + one.at_s, number, one) for number, one in enumerate(self._scenario.injections)]
        heals: list[tuple[float, str, object]] = []
        last_heal = began
        while due or heals:
            self._tick(works)
            now = time.monotonic()
            while due and due[0][0] <= now:
                _, _, injection = due.pop(0)
                try:
                    heal = faults[injection.fault].begin(rig, rng)
                except Exception as error:  # noqa: BLE001 - a fault may meet what another one broke
                    print(f"  ({injection.fault} could not be injected: {type(error).__name__})", file=sys.stderr)
                    continue
                last_heal = time.monotonic()
                if heal is not None:
                    heals.append((now + injection.lasts_s, injection.fault, heal))
            for one in [one for one in heals if one[0] <= now]:
                heals.remove(one)
                one[2]()  # type: ignore[operator]
                last_heal = time.monotonic()
                self._progress_at = None
        return last_heal

    def _settle(self, works: list[Work], last_heal: float) -> bool:
        """Wait until everything has ended. Says what has not."""
        while not all(work.ended for work in works):
            self._tick(works)
            if time.monotonic() - last_heal > RECOVERY_S:
                for work in works:
                    if work.ended:
                        continue
                    states = {job: self._rig.client.status(job)["state"] for job in work.jobs}
                    self._problems.append(f"{work.name} has not ended {RECOVERY_S:g} s after the last fault: {states}")
                    self._problems += [f"  {batch}: {open_chunks(self._rig, batch)}" for batch in work.truth]
                self._problems.append(f"logs are in {self._rig.folder}")
                return False
        return True

    def _tick(self, works: list[Work]) -> None:
        rig = self._rig
        rig.keep_alive()
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            for work in works:
                if work.ended:
                    continue
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
            self._check_sums(works)
        time.sleep(_TICK_S)

    def _check_sums(self, works: list[Work]) -> None:
        """`status` adds up at every moment, and nothing that was answered is unanswered again."""
        for work in works:
            for batch in work.truth:
                try:
                    rows = self._rig.client.status(batch)["rows"]
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


def _lane(
    name: str, database: str, folder: Path, forker: Forker, serving: LoopThread, seeds: queue.SimpleQueue[Scenario],
    done: queue.SimpleQueue[Outcome | str], until: float, leases: tuple[float, float],
) -> None:  # fmt: skip
    rig = open_rig(name, database, folder / name, forker, serving, lease_s=leases[0], sweep_s=leases[1])
    try:
        while time.monotonic() < until:
            try:
                scenario = seeds.get_nowait()
            except queue.Empty:
                break
            outcome = SeedRun(rig, scenario).run()
            done.put(outcome)
            rig.heal_all()
            if outcome.problems:  # what it left may be broken: the next seed gets a stack of its own
                kept = rig.folder
                for problem in rig.close():
                    outcome.problems.append(problem)
                name = f"{name}x"
                rig = open_rig(
                    name, database, kept.parent / name, forker, serving, lease_s=leases[0], sweep_s=leases[1]
                )
    finally:
        for problem in rig.close():
            done.put(problem)


def _print(outcome: Outcome, replay: str) -> None:
    resumed = f", first row after {outcome.resumed_s:.1f} s" if outcome.resumed_s is not None else ""
    verdict = "FAIL" if outcome.problems else "ok  "
    times = f"{outcome.took_s:.1f} s, settled in {outcome.settled_s:.1f} s{resumed}"
    paid = f"paid twice {outcome.paid_twice} (spoilt {outcome.spoilt}, in flight {outcome.allowed})"
    print(f"{verdict} seed {outcome.scenario.seed} ({outcome.scenario}): {times}; {paid}", flush=True)
    for problem in outcome.problems:
        print(f"       {problem}")
    if outcome.problems:
        print(f"       again: {replay}", flush=True)


def _document(outcome: Outcome) -> dict[str, object]:
    return {
        "seed": outcome.scenario.seed, "database": outcome.scenario.database,
        "faults": list(map(str, outcome.scenario.injections)), "settled_s": outcome.settled_s,
        "resumed_s": outcome.resumed_s, "paid_twice": outcome.paid_twice, "problems": outcome.problems,
    }  # fmt: skip


def main() -> int:
    """Run what the command line asks for. Returns the exit code."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=100, help="how many, from --first on")
    arguments.add_argument("--first", type=int, default=0)
    arguments.add_argument("--seed", type=int, help="this one alone")
    arguments.add_argument("--minutes", type=float, default=20)
    arguments.add_argument("--lanes", type=int, default=6, help="stacks side by side")
    arguments.add_argument("--database", choices=("sqlite", "postgresql"), help="default: both, in turn")
    arguments.add_argument("--fault", action="append", default=[], help="draw from these alone; repeatable")
    arguments.add_argument("--lease", type=float, default=2)
    arguments.add_argument("--sweep", type=float, default=1)
    arguments.add_argument("--faults", action="store_true", help="list all faults")
    arguments.add_argument("--json", type=Path, help="write the outcomes there")
    asked = arguments.parse_args()
    if asked.faults:
        print("\n".join(all_faults()))
        return 0
    if unknown := set(asked.fault) - set(all_faults()):
        arguments.error(f"no such fault: {', '.join(sorted(unknown))}")
    return _run_seeds(asked)


def _databases(asked: argparse.Namespace) -> list[str]:
    if asked.database:
        return [asked.database]
    try:
        find_programs()
    except DatabaseUnavailable as error:
        print(f"SQLite alone: {error.message}", file=sys.stderr)
        return ["sqlite"]
    return ["sqlite", "postgresql"]


def _run_seeds(asked: argparse.Namespace) -> int:
    databases = _databases(asked)
    numbers = [asked.seed] if asked.seed is not None else list(range(asked.first, asked.first + asked.seeds))
    waiting: dict[str, queue.SimpleQueue[Scenario]] = {database: queue.SimpleQueue() for database in databases}
    for number in numbers:
        scenario = scenario_of(number, databases, asked.fault)
        waiting[scenario.database].put(scenario)
    small_chunks()
    folder = Path(tempfile.mkdtemp(prefix="labelmill-chaos-"))
    began = time.monotonic()
    forker, serving = Forker(), LoopThread()
    done: queue.SimpleQueue[Outcome | str] = queue.SimpleQueue()
    lanes = []
    for number in range(max(len(databases), asked.lanes)):
        database = databases[number % len(databases)]
        if number >= waiting[database].qsize() * len(databases):
            continue
        lanes.append(
            threading.Thread(
                target=_lane, name=f"lane{number}",
                args=(f"lane{number}", database, folder, forker, serving, waiting[database], done,
                      began + asked.minutes * 60, (asked.lease, asked.sweep)),
            )
        )  # fmt: skip
    for lane in lanes:
        lane.start()
    outcomes: list[Outcome] = []
    others: list[str] = []
    flags = "".join(f' --fault "{name}"' for name in asked.fault) + (
        f" --database {asked.database}" if asked.database else ""
    )
    while any(lane.is_alive() for lane in lanes) or not done.empty():
        try:
            found = done.get(timeout=0.5)
        except queue.Empty:
            continue
        if isinstance(found, str):
            others.append(found)
            continue
        outcomes.append(found)
        _print(found, f"python ops/chaos/run.py --seed {found.scenario.seed}{flags}")
    forker.close()
    serving.close()
    failed = [one for one in outcomes if one.problems]
    if asked.json:
        asked.json.write_text(json.dumps([_document(one) for one in outcomes], indent=1))
    for problem in others:
        print(problem)
    took_min = (time.monotonic() - began) / 60
    which = f": {', '.join(str(one.scenario.seed) for one in failed)}" if failed else ""
    print(f"{len(outcomes)} of {len(numbers)} seeds in {took_min:.1f} minutes, {len(failed)} failed{which}")
    if not failed and not others:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed or others or len(outcomes) < len(numbers) else 0


if __name__ == "__main__":
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # clients that give up are part of the game
    sys.exit(main())
