"""Seeded random faults against whole stacks, and the promises checked from outside.

    python ops/chaos/run.py --seeds 100              # seeds 0 to 99, stopped after --minutes 20
    python ops/chaos/run.py --seed 17                # one seed again
    python ops/chaos/run.py --seed 17 --fault "FLUSHALL"
    python ops/chaos/run.py --faults                 # lists them
    python ops/chaos/run.py --long                   # outages of minutes, with the leases of production

Several lanes run side by side, each with a stack of its own that lives through many seeds: database, Redis, a stand-in
for Mistral, two worker processes. Of one seed: jobs are submitted, faults begin and end by the schedule, every
job must end within `RECOVERY_S` of the last one's end, and then `invariants` checks everything. Exit 1: a promise
was broken.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from faults import all_faults
from lanes import Lanes, Task, Timing
from launcher import Clock
from long_outages import OUTAGES
from pipeline import KINDS
from preparations import PREPARATIONS
from scenario import scenario_of
from seed_run import Outcome
from workload import IN_BATCH_MODE

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill_ops.embedded_postgres import find_programs

LEASE_S, SWEEP_S = 2.0, 1.0
RECOVERY_S = 60.0  #: From the end of the last fault to the end of every job, with a lease of 2 s …
LONG_RECOVERY_S = 120.0  #: … and with those of production.
LONG_TIMING = Timing(lease_s=15, sweep_s=5, recovery_s=LONG_RECOVERY_S)


def main() -> int:
    """Run what the command line asks for. Returns the exit code."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=100, help="how many, from --first on")
    arguments.add_argument("--first", type=int, default=0)
    arguments.add_argument("--seed", type=int, help="this one alone")
    arguments.add_argument("--long", action="store_true", help="outages of minutes; --seed picks one")
    arguments.add_argument("--minutes", type=float, default=20)
    arguments.add_argument("--lanes", type=int, default=6, help="stacks side by side")
    arguments.add_argument("--database", choices=("sqlite", "postgresql"), help="default: both, in turn")
    arguments.add_argument("--fault", action="append", default=[], help="draw from these alone; repeatable")
    kinds = ("classify", IN_BATCH_MODE, PREPARATIONS, *KINDS)
    arguments.add_argument("--work", action="append", default=[], choices=kinds, help="repeatable")
    arguments.add_argument("--lease", type=float, default=LEASE_S)
    arguments.add_argument("--sweep", type=float, default=SWEEP_S)
    arguments.add_argument("--faults", action="store_true", help="list all faults")
    arguments.add_argument("--json", type=Path, help="write the outcomes there")
    asked = arguments.parse_args()
    if asked.faults:
        print("\n".join(all_faults()))
        return 0
    if unknown := set(asked.fault) - set(all_faults()):
        arguments.error(f"no such fault: {', '.join(sorted(unknown))}")
    if asked.long:
        tasks, timing = _long_tasks(asked), LONG_TIMING
        flags = " --long"
    else:
        tasks, timing = _seed_tasks(asked), Timing(asked.lease, asked.sweep, max(RECOVERY_S, 4 * asked.lease))
        flags = "".join(f' --fault "{name}"' for name in asked.fault)
        flags += "".join(f' --work "{name}"' for name in asked.work)
        flags += f" --database {asked.database}" if asked.database else ""
        flags += f" --lease {asked.lease:g}" if asked.lease != LEASE_S else ""
        flags += f" --sweep {asked.sweep:g}" if asked.sweep != SWEEP_S else ""
    lanes = Lanes(tasks, timing, asked.lanes, asked.minutes)
    return _run(lanes, len(tasks), lambda seed: f"python ops/chaos/run.py --seed {seed}{flags}", asked.json)


def _databases(asked: argparse.Namespace) -> list[str]:
    if asked.database:
        return [asked.database]
    try:
        find_programs()
    except DatabaseUnavailable as error:
        print(f"SQLite alone: {error.message}", file=sys.stderr)
        return ["sqlite"]
    return ["sqlite", "postgresql"]


def _seed_tasks(asked: argparse.Namespace) -> list[Task]:
    databases = _databases(asked)
    numbers = [asked.seed] if asked.seed is not None else list(range(asked.first, asked.first + asked.seeds))
    return [Task(scenario_of(number, databases, asked.fault, asked.work)) for number in numbers]


def _long_tasks(asked: argparse.Namespace) -> list[Task]:
    databases, faults = _databases(asked), all_faults()
    if not Clock.can_be_set():
        print("no clock is set: there is no C compiler", file=sys.stderr)
    return [
        Task(outage.scenario(number), outage.saying, settable_clock=faults[outage.fault].needs_clock)
        for number, outage in enumerate(OUTAGES)
        if asked.seed in (None, number) and outage.database in databases
        if Clock.can_be_set() or not faults[outage.fault].needs_clock
    ]


def _run(lanes: Lanes, count: int, replay: Callable[[int], str], document: Path | None) -> int:
    began = time.monotonic()
    outcomes: list[Outcome] = []
    others: list[str] = []
    try:
        for found in lanes.outcomes():
            if isinstance(found, str):
                others.append(found)
            else:
                outcomes.append(found)
                _print(found, replay(found.scenario.seed))
    except KeyboardInterrupt:
        print("ends its stacks", file=sys.stderr)
        lanes.stop()
    failed = [one for one in outcomes if one.problems]
    if document:
        document.write_text(json.dumps(_document(outcomes), indent=1))
    for problem in others:
        print(problem)
    took_min = (time.monotonic() - began) / 60
    which = f": {', '.join(str(one.scenario.seed) for one in failed)}" if failed else ""
    rest = f", {count - len(outcomes)} did not run" if len(outcomes) < count else ""
    print(f"{len(outcomes)} of {count} seeds in {took_min:.1f} minutes, {len(failed)} failed{which}{rest}")
    if not failed and not others:
        shutil.rmtree(lanes.folder, ignore_errors=True)
    return 1 if failed or others or len(outcomes) < count else 0


def _print(outcome: Outcome, replay: str) -> None:
    resumed = f", first row after {outcome.resumed_s:.1f} s" if outcome.resumed_s is not None else ""
    verdict = "FAIL" if outcome.problems else "ok  "
    times = f"{outcome.took_s:.1f} s, settled in {outcome.settled_s:.1f} s{resumed}"
    paid = f"paid twice {outcome.paid_twice} (spoilt {outcome.spoilt}; requests lost at most {outcome.lost_slots})"
    notes = [*outcome.notes, *([f"never began: {', '.join(outcome.unborn)}"] if outcome.unborn else [])]
    said = "; ".join([times, paid, *notes])
    print(f"{verdict} seed {outcome.scenario.seed} ({outcome.scenario}): {said}", flush=True)
    for problem in outcome.problems:
        print(f"       {problem}")
    if outcome.problems:
        print(f"       again: {replay}", flush=True)


def _document(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    return [
        {
            "seed": outcome.scenario.seed,
            "database": outcome.scenario.database,
            "faults": list(map(str, outcome.scenario.injections)),
            "settled_s": outcome.settled_s,
            "resumed_s": outcome.resumed_s,
            "paid_twice": outcome.paid_twice,
            "notes": outcome.notes,
            "problems": outcome.problems,
        }
        for outcome in outcomes
    ]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # clients that give up are part of the game
    sys.exit(main())
