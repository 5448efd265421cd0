"""A lane's stack: database, Redis, a stand-in for Mistral and worker processes, each behind a proxy.

It lives through many seeds. Dead workers are started again after a moment, as any supervisor does.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forker import HOLD, Forker
from launcher import Clock, Launcher
from proxy import LoopThread, Proxy, ProxyMode
from redis import Redis
from stand_in import KEY, StandIn

from labelmill.client import Client
from labelmill.core.database import connect, upgrade
from labelmill.core.settings import Settings
from labelmill_ops.embedded_postgres import EmbeddedPostgres
from labelmill_ops.embedded_redis import EmbeddedRedis

WORKERS, CONCURRENCY = 2, 4
MAX_IN_FLIGHT, PER_REQUEST = 4, 20
RESTART_AFTER_S = 0.3
DRAIN_S = 15.0  #: A worker that was told to end has to have ended by then.


@dataclass
class Process:
    """A process that the lane keeps alive."""

    name: str
    arguments: tuple[str, ...]
    pid: int | None = None
    dead_since: float = 0.0
    expected_end: bool = False  #: A fault ended it; otherwise its end is a finding.
    told_to_end_at: float | None = None
    frozen: bool = False
    kept: bool = True  #: Started again when it dies.


@dataclass
class Rig:
    """Use `open_rig`."""

    name: str
    database: str
    folder: Path
    forker: Forker | Launcher
    serving: LoopThread
    mistral: StandIn
    redis: EmbeddedRedis
    postgres: EmbeddedPostgres | None
    redis_proxy: Proxy
    postgres_proxy: Proxy | None
    environment: dict[str, str]
    client: Client
    mounted: bool
    clock: Clock | None = None  #: What the stack goes by, where it can be set.
    processes: list[Process] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  #: What a reader may want to know.
    drains_s: list[float] = field(default_factory=list)
    lost_slots: int = 0  #: Requests that the faults of this seed may have had paid for nothing.
    keeps_processes: bool = True  #: Whether what dies is started again.
    broken_at: float = 0.0  #: When the first fault of this seed began.
    doomed: bool = False  #: A fault of this seed let jobs at Mistral come to a bad end.

    def status(self, job_id: str) -> dict[str, Any]:
        """The status document of a job of any kind."""
        return dict(self.client.status(job_id))

    @property
    def data(self) -> Path:
        """The data folder, on a small disk of its own where that can be had."""
        return self.folder / "data"

    @property
    def workers(self) -> list[Process]:
        """The worker processes."""
        return [process for process in self.processes if process.name.startswith("worker")]

    @property
    def hold(self) -> Path:
        """While this file exists, preparations of sources of the name `held…` do not end."""
        return self.folder / "hold"

    def costs_in_flight(self, workers: int) -> None:
        """A fault took the answers away from so many workers."""
        self.lost_slots += workers * MAX_IN_FLIGHT

    def empty_redis(self) -> None:
        """What Redis keeps in files is lost, if it does not run."""
        if self.redis._process is None:
            for path in (self.folder / "redis").iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def admin(self) -> Redis:
        """A client straight to Redis, past the proxy."""
        return Redis.from_url(self.redis.url, socket_timeout=5)

    def add(self, name: str, *arguments: str, kept: bool = True) -> Process:
        """Start a process and keep it alive."""
        process = Process(name, arguments, kept=kept)
        self.processes.append(process)
        self._start(process)
        return process

    def _start(self, process: Process) -> None:
        log = self.folder / f"{process.name}.log"
        process.pid = self.forker.start(process.arguments, self.environment, log, self.folder)
        process.expected_end, process.told_to_end_at, process.frozen = False, None, False

    def signal(self, process: Process, number: int) -> None:
        """Send a signal to a process, if it runs."""
        if process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)

    def kill(self, process: Process) -> None:
        """As the kernel's out-of-memory killer does."""
        process.expected_end = True
        self.signal(process, signal.SIGKILL)

    def terminate(self, process: Process) -> None:
        """As a deploy does."""
        process.expected_end, process.told_to_end_at = True, time.monotonic()
        self.signal(process, signal.SIGTERM)

    def keep_alive(self) -> None:
        """Notice what has died, start it again. Called some ten times a second."""
        now = time.monotonic()
        for process in list(self.processes):
            if process.pid is None:
                if process.kept and self.keeps_processes and now - process.dead_since > RESTART_AFTER_S:
                    self._start(process)
                continue
            code = self.forker.exit_code(process.pid)
            if code is None:
                if process.told_to_end_at is not None and not process.frozen and now - process.told_to_end_at > DRAIN_S:
                    self.findings.append(f"{process.name} did not end within {DRAIN_S:g} s of SIGTERM")
                    self.kill(process)
                    process.told_to_end_at = None
                continue
            if process.told_to_end_at is not None:
                self.drains_s.append(now - process.told_to_end_at)
            if not process.expected_end:
                self.findings.append(f"{process.name} ended by itself with {code}; see {self.folder}")
            process.pid, process.dead_since = None, now
            if not process.kept:
                self.processes.remove(process)

    def wait_until_ready(self, timeout_s: float = 40) -> None:
        """Wait for the workers' first words: a seed's faults are to meet workers at work."""
        logs = [self.folder / f"{worker.name}.log" for worker in self.workers]
        deadline = time.monotonic() + timeout_s
        while not all(log.exists() and " ready." in log.read_text(errors="replace") for log in logs):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the workers did not start within {timeout_s:g} s:\n{self.last_lines()}")
            time.sleep(0.1)

    def last_lines(self, count: int = 12) -> str:
        """The ends of the logs."""
        found = []
        for path in sorted(self.folder.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-count:]
            found.append("\n".join([f"--- {path.name}", *lines]))
        return "\n".join(found)

    def heal_all(self) -> None:
        """Whatever a seed left broken is whole again."""
        self.keeps_processes = True
        self.redis_proxy.set(ProxyMode.OPEN)
        if self.postgres_proxy is not None:
            self.postgres_proxy.set(ProxyMode.OPEN)
        self.mistral.troubles.clear()
        self.mistral.accept()
        for process in self.processes:
            if process.frozen:
                self.signal(process, signal.SIGCONT)
                process.frozen = False

    def close(self) -> list[str]:
        """End everything. Returns what did not end."""
        self.heal_all()
        for process in self.processes:
            process.kept, process.expected_end = False, True
            self.signal(process, signal.SIGTERM)
        deadline = time.monotonic() + DRAIN_S
        alive = [process for process in self.processes if process.pid is not None]
        while alive and time.monotonic() < deadline:
            time.sleep(0.1)
            alive = [one for one in alive if one.pid is not None and self.forker.exit_code(one.pid) is None]
        for process in alive:
            self.signal(process, signal.SIGKILL)
        self.client.close()
        self.redis_proxy.close()
        if self.postgres_proxy is not None:
            self.postgres_proxy.close()
        self.redis.stop()
        if self.postgres is not None:
            self.postgres.stop()
        self.mistral.close()
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.data)], check=False)
        return [f"{process.name} had to be killed at the end" for process in alive]


def open_rig(
    name: str,
    database: str,
    folder: Path,
    forker: Forker,
    serving: LoopThread,
    *,
    lease_s: float = 2,
    sweep_s: float = 1,
    settable_clock: bool = False,
) -> Rig:
    """Start a lane's stack; its workers are told to start, and answer when they are ready."""
    folder.mkdir(parents=True)
    data = folder / "data"
    data.mkdir()
    mounted = (
        os.geteuid() == 0
        and shutil.which("mount") is not None
        and (
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=96m", "chaos", str(data)], check=False, capture_output=True
            ).returncode
            == 0
        )
    )
    mistral = StandIn(serving, random.Random(0))
    clock = Clock(folder) if settable_clock else None
    under_clock = clock.environment if clock is not None else {}
    server = EmbeddedRedis(folder / "redis", environment=under_clock)
    server.start()
    redis_proxy = Proxy(serving, server.port)
    postgres, postgres_proxy = None, None
    if database == "postgresql":
        postgres = EmbeddedPostgres(survives_crash=True, environment=under_clock)
        postgres.start()
        base = f"chaos_{secrets.token_hex(3)}"
        postgres.execute(f"CREATE DATABASE {base}")
        postgres_proxy = Proxy(serving, postgres.port)
        own_url = postgres.url(base)
        url = own_url.replace(f":{postgres.port}/", f":{postgres_proxy.port}/")
    else:
        url = own_url = f"sqlite:///{data}/labelmill.db"
    engine = connect(own_url)
    upgrade(engine)
    engine.dispose()
    broker = f"redis://127.0.0.1:{redis_proxy.port}/0"
    settings = {
        "BROKER_URL": broker,
        "DATABASE_URL": url,
        "MISTRAL_URL": mistral.url,
        "DATA_DIR": str(data),
        "LEASE_S": str(lease_s),
        "SWEEP_S": str(sweep_s),
        "TEXTS_PER_REQUEST": str(PER_REQUEST),
        "MAX_IN_FLIGHT": str(MAX_IN_FLIGHT),
        "REQUEST_TIMEOUT_S": "5",
        "POLL_S": "0.3",
        "LOG_FORMAT": "json",
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LABELMILL_")}
    environment |= {f"LABELMILL_{name}": value for name, value in settings.items()} | {"MISTRAL_API_KEY": KEY}
    environment[HOLD] = str(folder / "hold")
    # the producer's way to Redis is the workers'; to the database it has its own, so that it can always look
    client = Client(Settings(broker_url=broker, database_url=own_url, data_dir=str(data), _env_file=None))  # type: ignore[call-arg]
    starter = forker if clock is None else Launcher(clock)
    rig = Rig(
        name,
        database,
        folder,
        starter,
        serving,
        mistral,
        server,
        postgres,
        redis_proxy,
        postgres_proxy,
        environment,
        client,
        mounted,
        clock,
    )
    for number in range(WORKERS):
        worker = ("-A", "labelmill_worker.app", "worker", "-Q", "prepare,train,classify", "-c", str(CONCURRENCY))
        rig.add(f"worker{number}", *worker, "-n", f"{name}-{number}@%h")
    return rig


BEAT = ("-A", "labelmill_worker.app", "beat", "--pidfile", "")
