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
from pathlib import Path

from faults import all_faults
from forker import Forker, small_chunks
from pipeline import KINDS
from proxy import LoopThread
from rig import open_rig
from scenario import Scenario, scenario_of
from seed_run import Outcome, SeedRun

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill_ops.embedded_postgres import find_programs

RECOVERY_S = (
    60.0  #: From the end of the last fault to the end of every job, with a lease of 2 s and a sweep each second.
)


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
            outcome = SeedRun(rig, scenario, RECOVERY_S).run()
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
    paid = f"paid twice {outcome.paid_twice} (spoilt {outcome.spoilt}; requests lost at most {outcome.lost_slots})"
    unborn = f"; never began: {', '.join(outcome.unborn)}" if outcome.unborn else ""
    print(f"{verdict} seed {outcome.scenario.seed} ({outcome.scenario}): {times}; {paid}{unborn}", flush=True)
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
    arguments.add_argument("--work", action="append", default=[], choices=("classify", *KINDS), help="repeatable")
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
        scenario = scenario_of(number, databases, asked.fault, asked.work)
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
    flags = "".join(f' --fault "{name}"' for name in asked.fault)
    flags += "".join(f' --work "{name}"' for name in asked.work)
    flags += f" --database {asked.database}" if asked.database else ""
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
