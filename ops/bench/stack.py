"""What a measurement runs on: canned server, Redis, a database of its own, real worker processes. Linux only."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from celery import Celery
from sqlalchemy import text

from labelmill.core.database import connect, upgrade
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill.services.batches import ClassifyRequest, accept_batch
from labelmill.services.context import ServiceContext
from labelmill.services.submissions.accepted import start
from labelmill_ops.embedded_postgres import EmbeddedPostgres
from labelmill_ops.embedded_redis import EmbeddedRedis
from labelmill_ops.held_signals import signals_held
from labelmill_ops.ports import free_port

HERE = Path(__file__).parent
_TICK = os.sysconf("SC_CLK_TCK")
_WORDS = (  # noqa: SIM905 - a list would fill the page
    "play turn on off the lights music weather tomorrow alarm at seven kitchen please remind me to call set volume "
    "what is news about football order pizza train ticket london my calendar add milk shopping list send an email"
).split()


def text_of(row: int) -> str:
    """A short text, some 50 characters, different for every row. The same in every run."""
    parts = []
    number = row * 2_654_435_761 % 2**32
    for _ in range(6):
        parts.append(_WORDS[number % len(_WORDS)])
        number = number // len(_WORDS) + 7_919 * (row % 97)
    return f"{' '.join(parts)} request {row:09d}"


def input_file(folder: Path, rows: int, *, first: int = 0, repeat_share: float = 0.0) -> Path:
    """A JSONL file of `rows` texts with ids of their own; `repeat_share` of them repeat an earlier text."""
    path = folder / f"rows-{first}-{rows}-{repeat_share}.jsonl"
    if not path.exists():
        every = int(1 / repeat_share) if repeat_share else 0
        with path.open("wb") as stream:
            for row in range(first, first + rows):
                shown = row // 2 if every and row % every == every - 1 else row
                stream.write(orjson.dumps({"id": f"id-{row:08d}", "text": text_of(shown)}) + b"\n")
    return path


def labelled_file(folder: Path, labels: Sequence[str], each: int = 10) -> Path:
    """A JSONL file with `each` texts of every label, to prepare a dataset from."""
    path = folder / "labelled.jsonl"
    rows = [
        {"text": text_of(700_000_000 + row), "intent": labels[row % len(labels)]} for row in range(each * len(labels))
    ]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def environment(folder: Path, requirement: str) -> Path | None:
    """The interpreter of a fresh environment with one package in it; None where it cannot be had."""
    made = folder / requirement.replace("=", "-")
    python = made / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(made)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
        if subprocess.run(install, check=False, stderr=subprocess.DEVNULL).returncode:
            shutil.rmtree(made)
            return None
    return python


class CannedServer:
    """The server's process."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        port = self.url.rsplit(":", 1)[1]
        self._process: subprocess.Popen[bytes] | None = None
        try:
            with signals_held():
                self._process = subprocess.Popen([sys.executable, HERE / "canned_server.py", "--port", port])
            self._wait_until_ready()
        except BaseException:  # told to end in the meantime
            self.stop()
            raise

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                self.stats()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def reset(self, latency_s: float, rate: float = 0, *, keep_texts: bool = True) -> None:
        """Forget what was asked; answer so from now on."""
        self._call("/reset", orjson.dumps({"latency_s": latency_s, "rate": rate, "keep_texts": keep_texts}))

    def stats(self) -> dict[str, Any]:
        """What was asked since the last reset."""
        return dict(orjson.loads(self._call("/stats")))

    def _call(self, path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(self.url + path, data=body, timeout=10) as answer:  # noqa: S310 - loopback
            return bytes(answer.read())


@dataclass
class Stack:
    """Redis, a fresh database and worker processes, all of one run."""

    env: dict[str, str]
    database_url: str
    folder: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    scripts: list[subprocess.Popen[bytes]] = field(default_factory=list)
    postmaster: int | None = None

    def python(
        self, *arguments: str | Path, timeout_s: float = 1800, interpreter: str | Path = sys.executable
    ) -> dict[str, Any]:
        """Run a script with this stack's environment. Returns the JSON of its last line."""
        done = subprocess.run(
            [interpreter, *arguments],
            env=self.env,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            check=True,
            timeout=timeout_s,
        )
        printed = done.stdout.strip()
        return dict(orjson.loads(printed if printed.startswith(b"{\n") else printed.splitlines()[-1]))

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start a script whose standard output is read later."""
        with signals_held():
            process = subprocess.Popen(
                [sys.executable, *arguments], env=self.env, cwd=self.folder, stdout=subprocess.PIPE
            )
            self.scripts.append(process)
        return process

    def labelmill(self, *arguments: str | Path) -> dict[str, Any]:
        """Run a command that prints one JSON document."""
        return self.python("-m", "labelmill", *arguments)

    def producer(self, act: str, *arguments: str | Path) -> dict[str, Any]:
        """One act of the producer's, see `producer_side`."""
        return self.python(HERE / "producer_side.py", act, *arguments)

    def wait_for(self, batch_id: str, timeout_s: float = 1800) -> float:
        """Wait until a batch has ended well. Returns the moment (`time.time()`) at which that was seen."""
        engine = connect(self.database_url)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with engine.connect().execution_options(read_only=True) as connection:
                state = connection.scalar(text("SELECT state FROM batches WHERE id = :id"), {"id": batch_id})
            if state == "completed":
                engine.dispose()
                return time.time()
            if state in ("failed", "cancelled", "paused"):
                raise RuntimeError(f"{batch_id} is {state}")
            time.sleep(0.02)
        raise TimeoutError(f"{batch_id} has not ended")

    def count(self, table: str) -> int:
        """How many rows a table has."""
        engine = connect(self.database_url)
        with engine.connect().execution_options(read_only=True) as connection:
            found = connection.scalar(text(f"SELECT count(*) FROM {table}"))  # noqa: S608 - our own names
        engine.dispose()
        return int(found or 0)

    def database_bytes(self) -> int:
        """The size of the PostgreSQL database on disk."""
        engine = connect(self.database_url)
        with engine.connect().execution_options(read_only=True) as connection:
            size = connection.scalar(text("SELECT pg_database_size(current_database())"))
        engine.dispose()
        return int(size or 0)

    def worker_cpu_s(self) -> float:
        """CPU seconds of all worker processes so far."""
        return sum(_cpu_s(worker.pid) for worker in self.workers)

    def database_cpu_s(self) -> float:
        """CPU seconds of the PostgreSQL server so far, with its ended processes; 0 for SQLite, which has none."""
        if self.postmaster is None:
            return 0.0
        children = sum(_cpu_s(pid) for pid in _children(self.postmaster))
        return children + _cpu_s(self.postmaster, ended_children=True)

    def worker_peaks_kb(self) -> list[int]:
        """The largest resident memory of each worker process so far."""
        found = []
        for worker in self.workers:
            lines = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
            found.append(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")))
        return found


def _stat_fields(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def _cpu_s(pid: int, *, ended_children: bool = False) -> float:
    try:
        fields = _stat_fields(pid)
    except OSError:
        return 0.0
    return sum(int(value) for value in fields[11 : 15 if ended_children else 13]) / _TICK


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if int(_stat_fields(int(entry.name))[1]) == parent:
                    found.append(int(entry.name))
    return found


class Machine:
    """What outlives a run: the canned server, a PostgreSQL cluster when asked for, a folder for files."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.database = database
        self._running = contextlib.ExitStack()
        with contextlib.ExitStack() as started:
            self.server = CannedServer()
            started.callback(self.server.stop)
            self.postgres = started.enter_context(EmbeddedPostgres()) if database == "postgresql" else None
            self._running = started.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._running.close()

    @contextlib.contextmanager
    def database_only(self) -> Iterator[Stack]:
        """A fresh, migrated database and nothing else."""
        name = f"run_{secrets.token_hex(4)}"
        if self.postgres is not None:
            self.postgres.execute(f"CREATE DATABASE {name}")
            url = self.postgres.url(name)
        else:
            url = f"sqlite:///{self.folder / name}.db"
        engine = connect(url)
        upgrade(engine)
        engine.dispose()
        env = {key: value for key, value in os.environ.items() if not key.startswith("LABELMILL_")}
        env |= {
            "LABELMILL_DATABASE_URL": url,
            "LABELMILL_MISTRAL_URL": self.server.url,
            "MISTRAL_API_KEY": "bench",
            "LABELMILL_DATA_DIR": str(self.folder / "data"),
            "BENCH_DATABASE": url,
            "BENCH_SERVER": self.server.url,
        }
        stack = Stack(env, url, self.folder)
        if self.postgres is not None and self.postgres._process is not None:
            stack.postmaster = self.postgres._process.pid
        try:
            yield stack
        finally:
            for script in stack.scripts:
                script.kill()  # only a bench that was told to end has left any
                script.wait()
            if self.postgres is not None:
                self.postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")
            else:
                for path in self.folder.glob(f"{name}.db*"):
                    path.unlink()

    @contextlib.contextmanager
    def without_workers(self) -> Iterator[Stack]:
        """A database and a Redis: nothing but the producer works."""
        with self.database_only() as stack, EmbeddedRedis(self.folder / f"redis-{secrets.token_hex(4)}") as redis:
            stack.env["LABELMILL_BROKER_URL"] = redis.url
            yield stack

    @contextlib.contextmanager
    def running(
        self, workers: int, settings: Mapping[str, object] | None = None, *, naive: bool = False
    ) -> Iterator[Stack]:
        """A database, Redis and `workers` worker processes that are ready."""
        with self.database_only() as stack, EmbeddedRedis(self.folder / f"redis-{secrets.token_hex(4)}") as redis:
            stack.env |= {"LABELMILL_BROKER_URL": redis.url, "BENCH_BROKER": redis.url}
            stack.env |= {name: str(value) for name, value in (settings or {}).items()}
            try:
                for number in range(workers):
                    with signals_held():
                        stack.workers.append(self.start_worker(stack, number, naive=naive))
                _wait_until_ready(redis.url, workers)
                if not naive:
                    self._warm_up(stack)
                yield stack
            finally:
                for process in stack.workers:
                    process.terminate()
                for process in stack.workers:
                    try:
                        process.wait(15)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()

    def start_worker(self, stack: Stack, number: int, *, naive: bool = False) -> subprocess.Popen[bytes]:
        """One more worker process, which need not be ready yet."""
        arguments = ["-A", "labelmill_worker.app", "worker", "-Q", "prepare,train,classify", "-c", "4"]
        if naive:
            arguments = ["-A", "celery_per_text", "worker", "--pool", "threads", "-c", "100"]
        command = [sys.executable, "-m", "celery", *arguments, "-n", f"bench{number}@localhost"]
        with (self.folder / "workers.log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--loglevel", "WARNING"], env=stack.env, cwd=HERE, stdout=log, stderr=log
            )

    def _warm_up(self, stack: Stack) -> None:
        """Let every process connect to what it needs, and the model's labels be learnt."""
        self.server.reset(0.0)
        one = input_file(self.folder, 1, first=900_000_000)
        sender = MessageSender.connect(Settings(broker_url=stack.env["LABELMILL_BROKER_URL"]))
        request = ClassifyRequest.of(str(one), "ft:classifier:bench:x")
        with ServiceContext(connect(stack.database_url), sender) as context:
            batches = [start(context, accept_batch(context, request)) for _ in range(4 * len(stack.workers))]
        for batch in batches:
            stack.wait_for(batch.id, 60)


def _wait_until_ready(broker_url: str, workers: int) -> None:
    app = Celery(broker=broker_url, set_as_current=False)
    deadline = time.monotonic() + 60
    while len(app.control.ping(timeout=0.5, limit=workers) or []) < workers:
        if time.monotonic() > deadline:
            raise TimeoutError("the workers did not start")
    app.close()
