"""Worker processes that are killed, told to end or frozen; a beat, which nothing needs."""

from __future__ import annotations

import random
import signal

from rig import BEAT, Rig

from faults import Heal, InjectedFault


def _kill_one(rig: Rig, rng: random.Random) -> None:
    rig.costs_in_flight(1)
    rig.kill(rng.choice(rig.workers))


def _kill_all(rig: Rig, rng: random.Random) -> None:
    del rng
    rig.costs_in_flight(len(rig.workers))
    for worker in rig.workers:
        rig.kill(worker)


def _kill_everything(rig: Rig, rng: random.Random) -> Heal:
    """As when a machine goes down: workers, Redis and PostgreSQL at once. SQLite's file stays."""
    rig.costs_in_flight(len(rig.workers))
    rig.keeps_processes = False
    for process in rig.processes:
        rig.kill(process)
    rig.redis.kill()
    if rig.postgres is not None:
        rig.postgres.halt(signal.SIGQUIT)
    empty = rng.random() < 0.5

    def start() -> None:
        if empty:
            rig.empty_redis()
        rig.redis.start()
        if rig.postgres is not None:
            rig.postgres.resume()
        rig.keeps_processes = True

    return start


def _terminate_one(rig: Rig, rng: random.Random) -> None:
    rig.terminate(rng.choice(rig.workers))


def _terminate_all(rig: Rig, rng: random.Random) -> None:
    del rng
    for worker in rig.workers:
        rig.terminate(worker)


def _freeze_one(rig: Rig, rng: random.Random) -> Heal:
    worker = rng.choice(rig.workers)
    pid = worker.pid
    rig.costs_in_flight(1)
    worker.frozen = True
    rig.signal(worker, signal.SIGSTOP)

    def thaw() -> None:
        if worker.pid == pid:
            rig.signal(worker, signal.SIGCONT)
            worker.frozen = False

    return thaw


def _run_beat(rig: Rig, rng: random.Random) -> Heal:
    del rng
    beat = rig.add("beat", *BEAT, kept=False)
    return lambda: rig.kill(beat)


FAULTS = (
    InjectedFault("kill one worker", _kill_one),
    InjectedFault("kill all workers", _kill_all),
    InjectedFault("kill everything", _kill_everything, (0.2, 3.0)),
    InjectedFault("SIGTERM to one worker", _terminate_one),
    InjectedFault("SIGTERM to all workers", _terminate_all),
    InjectedFault("freeze a worker past its lease", _freeze_one, (3.5, 6.0)),
    InjectedFault("a beat runs", _run_beat, (2.0, 5.0)),
)
