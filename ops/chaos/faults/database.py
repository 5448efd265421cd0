"""PostgreSQL restarted, cut off or out of reach; SQLite locked by another process."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import time

import psycopg
from proxy import ProxyMode
from rig import Rig

from faults import Heal, InjectedFault

_POSTGRES = ("postgresql",)


def _restart(rig: Rig, rng: random.Random) -> Heal:
    assert rig.postgres is not None  # noqa: S101 - this fault is PostgreSQL's
    rig.costs_in_flight(len(rig.workers))
    rig.postgres.halt(signal.SIGINT if rng.random() < 0.5 else signal.SIGQUIT)
    return rig.postgres.resume


def _terminate_backends(rig: Rig, rng: random.Random) -> None:
    del rng
    assert rig.postgres is not None  # noqa: S101 - as above
    with psycopg.connect(rig.postgres.url(), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'chaos%'")


def _way(name: str, way: ProxyMode) -> InjectedFault:
    def begin(rig: Rig, rng: random.Random) -> Heal:
        del rng
        proxy = rig.postgres_proxy
        assert proxy is not None  # noqa: S101 - as above
        rig.costs_in_flight(len(rig.workers))
        proxy.set(way)
        return lambda: proxy.set(ProxyMode.OPEN)

    return InjectedFault(name, begin, (0.5, 6.0), _POSTGRES)


def _reset(rig: Rig, rng: random.Random) -> None:
    del rng
    assert rig.postgres_proxy is not None  # noqa: S101 - as above
    rig.postgres_proxy.reset_connections()


def _lock(rig: Rig, rng: random.Random) -> Heal:
    del rng
    rig.costs_in_flight(len(rig.workers))
    other = sqlite3.connect(rig.data / "labelmill.db", isolation_level=None, check_same_thread=False, timeout=5)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(sqlite3.OperationalError):
            other.execute("BEGIN EXCLUSIVE")
            break

    def let_go() -> None:
        with contextlib.suppress(sqlite3.OperationalError):
            other.execute("ROLLBACK")
        other.close()

    return let_go


FAULTS = (
    InjectedFault("PostgreSQL restarted", _restart, (0.0, 3.0), _POSTGRES),
    InjectedFault("PostgreSQL ends every connection", _terminate_backends, databases=_POSTGRES),
    _way("PostgreSQL refuses connections", ProxyMode.CUT),
    _way("PostgreSQL swallows what it is sent", ProxyMode.HUNG),
    InjectedFault("connections to PostgreSQL are reset", _reset, databases=_POSTGRES),
    InjectedFault("SQLite locked by another process", _lock, (1.0, 6.0), ("sqlite",)),
)
