"""Redis gone, emptied, out of reach, frozen or full."""

from __future__ import annotations

import contextlib
import os
import random
import signal

from proxy import ProxyMode
from rig import Rig

from faults import Heal, InjectedFault


def _flush(rig: Rig, rng: random.Random) -> None:
    del rng
    with rig.admin() as client:
        client.flushall()


def _kill(rig: Rig, rng: random.Random) -> Heal:
    empty = rng.random() < 0.6
    rig.redis.kill()

    def start() -> None:
        if empty:
            rig.empty_redis()
        rig.redis.start()

    return start


def _cut(rig: Rig, rng: random.Random) -> Heal:
    del rng
    rig.redis_proxy.set(ProxyMode.CUT)
    return lambda: rig.redis_proxy.set(ProxyMode.OPEN)


def _hang(rig: Rig, rng: random.Random) -> Heal:
    del rng
    rig.redis_proxy.set(ProxyMode.HUNG)
    return lambda: rig.redis_proxy.set(ProxyMode.OPEN)


def _reset(rig: Rig, rng: random.Random) -> None:
    del rng
    rig.redis_proxy.reset_connections()


def _freeze(rig: Rig, rng: random.Random) -> Heal:
    del rng
    assert rig.redis._process is not None  # noqa: S101 - it runs
    pid = rig.redis._process.pid
    os.kill(pid, signal.SIGSTOP)

    def thaw() -> None:
        with contextlib.suppress(ProcessLookupError):  # another fault may have killed it
            os.kill(pid, signal.SIGCONT)

    return thaw


def _full(rig: Rig, rng: random.Random) -> Heal:
    del rng
    with rig.admin() as client:
        client.config_set("maxmemory", "1")

    def make_room() -> None:
        with rig.admin() as client:
            client.config_set("maxmemory", "0")

    return make_room


FAULTS = (
    InjectedFault("FLUSHALL", _flush),
    InjectedFault("Redis killed", _kill, (0.2, 4.0)),
    InjectedFault("Redis refuses connections", _cut, (0.5, 5.0)),
    InjectedFault("Redis swallows what it is sent", _hang, (1.0, 7.0)),
    InjectedFault("connections to Redis are reset", _reset),
    InjectedFault("Redis frozen", _freeze, (1.0, 7.0)),
    InjectedFault("Redis full", _full, (1.0, 4.0)),
)
