"""Which processes the local stack is made of, and when each is ready."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kombu.exceptions import OperationalError
from pydantic import SecretStr
from redis.exceptions import RedisError

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.messages import QUEUES
from labelmill.core.queue.application import QueueApp
from labelmill.core.running_stack import STACK_FILE, write_stack_file
from labelmill.core.settings import Settings
from labelmill.core.storage.new_files import make_private_folder
from labelmill_ops.embedded_redis import answers_ping, server_command, write_password_file
from labelmill_ops.ports import LOOPBACK, answers, choose_port
from labelmill_ops.stack.child import ChildSpec, Drain
from labelmill_worker.runtime.flower import CONFIG as FLOWER_CONFIG

LOCK_FILE = "up.lock"
USUAL_FLOWER_PORT = 5555
_KEYS = ("MISTRAL_API_KEY", "WANDB_API_KEY")  #: For workers alone.
EMULATOR_KEY = "emulator"  # the emulator takes any key
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to this machine
_CELERY = (sys.executable, "-m", "celery", "--quiet", "-A", "labelmill_worker.app")


@dataclass(frozen=True)
class StackOptions:
    """What `labelmill up` was asked for. Ports: None takes any free one (Flower: 5555 when that is free)."""

    emulator: bool = False
    flower: bool = True
    worker_processes: int = 2
    concurrency: int = 4  #: Tasks at a time, per worker process.
    redis_port: int | None = None
    flower_port: int | None = None
    emulator_port: int | None = None
    faults: tuple[str, ...] = ()  #: What the emulator does wrong, as `--fault` writes it.
    fault_seed: int = 0


@dataclass(frozen=True)
class LocalStack:
    """The settings that the stack's processes and its users share, and the processes' specs."""

    settings: Settings
    redis: ChildSpec | None  #: None: a broker of yours is used.
    rest: tuple[ChildSpec, ...]


@contextlib.contextmanager
def data_folder_lock(data_dir: Path) -> Iterator[None]:
    """Hold the data folder for one stack; free again however this process ends. Raises InvalidInput: it is taken."""
    make_private_folder(data_dir)
    with (data_dir / LOCK_FILE).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InvalidInput(
                f"another `labelmill up` runs on {data_dir}: stop it, or choose another --data-dir"
            ) from error
        (data_dir / STACK_FILE).unlink(missing_ok=True)  # left by a stack that was killed
        yield


def plan_stack(settings: Settings, options: StackOptions) -> LocalStack:
    """Choose ports and lay out all processes; starts nothing. Raises InvalidInput when a port asked for is taken."""
    data_dir = settings.data_path.absolute()
    changes: dict[str, object] = {"data_dir": str(data_dir), "database_url": settings.sql_url}
    redis_port, redis_password = None, ""
    if "broker_url" not in settings.model_fields_set:
        redis_port = choose_port(options.redis_port, "--redis-port")
        redis_password = secrets.token_urlsafe(24)  # loopback is open to every user of the machine
        changes["broker_url"] = f"redis://:{redis_password}@{LOOPBACK}:{redis_port}/0"
    emulator_port = None
    if options.emulator:
        emulator_port = choose_port(options.emulator_port, "--emulator-port")
        changes["mistral_url"] = f"http://{LOOPBACK}:{emulator_port}"
        changes["mistral_api_key"] = SecretStr(EMULATOR_KEY)  # a real one is not the emulator's to see
    flower_port = None
    if options.flower:
        flower_port = choose_port(options.flower_port, "--flower-port", usual=USUAL_FLOWER_PORT)
        changes["flower_url"] = f"http://{LOOPBACK}:{flower_port}"
    shared = settings.model_copy(update=changes)
    environments = _Environments.of(shared)
    specs = [*_workers(shared, options, environments.worker)]
    if flower_port:
        specs.append(_flower(flower_port, environments.queue))
    if emulator_port:
        specs.append(_emulator(emulator_port, options, data_dir, environments.bare))
    redis = _redis(redis_port, redis_password, data_dir, environments.bare) if redis_port else None
    return LocalStack(shared, redis, tuple(specs))


@dataclass(frozen=True)
class _Environments:
    """What each kind of process is told, and no more. Addresses and keys go by the environment: a command line can be
    read by every user of the machine."""

    bare: dict[str, str]  #: Redis and the emulator: nothing of Labelmill's.
    queue: dict[str, str]  #: Flower: where the queue is.
    worker: dict[str, str]  #: Everything, the keys too.

    @classmethod
    def of(cls, settings: Settings) -> _Environments:
        bare = {
            name: value
            for name, value in os.environ.items()
            if name not in (*_KEYS, "LABELMILL_BROKER_URL", "LABELMILL_DATABASE_URL")
        }
        bare["PYTHONUNBUFFERED"] = "1"
        queue = bare | {
            "LABELMILL_BROKER_URL": settings.broker_url,
            "LABELMILL_DATA_DIR": settings.data_dir,
            "LABELMILL_MISTRAL_URL": settings.mistral_url,
        }
        keys = {name: getattr(settings, name.lower()) for name in _KEYS}
        worker = queue | {"LABELMILL_DATABASE_URL": settings.database_url}
        worker |= {name: key.get_secret_value() for name, key in keys.items() if key}
        return cls(bare, queue, worker)


def _redis(port: int, password: str, data_dir: Path, environment: dict[str, str]) -> ChildSpec:
    folder = data_dir / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    command = server_command(folder, port, write_password_file(folder, password))
    return ChildSpec("redis", command, environment, lambda: answers_ping(port, password), Drain.BROKER)


def _workers(settings: Settings, options: StackOptions, environment: dict[str, str]) -> Iterator[ChildSpec]:
    app = QueueApp.make(settings, set_as_current=False, checks_messages=True)
    for number in range(1, options.worker_processes + 1):
        name = f"worker{number}"
        node = f"{name}@{socket.gethostname()}"
        command = [
            *_CELERY,
            "worker",
            "-Q",
            ",".join(QUEUES),
            "-c",
            str(options.concurrency),
            "--pool",
            "threads",
            "-n",
            node,
        ]
        yield ChildSpec(name, command, environment, _answers_celery_ping(app, node), Drain.WORK)


def _answers_celery_ping(app: QueueApp, node: str) -> Callable[[], bool]:
    def is_ready() -> bool:
        try:
            return bool(app.control.ping(destination=[node], timeout=0.5, limit=1))
        except (OperationalError, RedisError, OSError):
            return False  # it is asked again: a busy machine breaks off what it had no time for

    return is_ready


def _flower(port: int, environment: dict[str, str]) -> ChildSpec:
    command = [*_CELERY, "flower", f"--conf={FLOWER_CONFIG}", f"--address={LOOPBACK}", f"--port={port}"]

    def is_ready() -> bool:
        prefix = environment.get("FLOWER_URL_PREFIX", "").strip("/")
        address = f"http://{LOOPBACK}:{port}/{prefix + '/' if prefix else ''}healthcheck"
        try:
            with _DIRECT.open(address, timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    return ChildSpec("flower", command, environment, is_ready, Drain.WATCH)


def _emulator(port: int, options: StackOptions, data_dir: Path, environment: dict[str, str]) -> ChildSpec:
    # its files and models are kept: a model version in the database must still answer after a restart
    state = str(data_dir / "emulator")
    command = [
        sys.executable,
        "-m",
        "labelmill_ops.emulator",
        "--port",
        str(port),
        "--state",
        state,
        "--fault-seed",
        str(options.fault_seed),
        *(f"--fault={fault}" for fault in options.faults),
    ]
    return ChildSpec("emulator", command, environment, lambda: answers(port), Drain.WATCH)


@contextlib.contextmanager
def announced(settings: Settings) -> Iterator[None]:
    """Let every command that uses this data folder find the stack, as long as it runs. Keys are not written."""
    addresses = ("broker_url", "database_url", "mistral_url", "flower_url")
    target = write_stack_file(settings.data_path, {name: getattr(settings, name) for name in addresses})
    try:
        yield
    finally:
        target.unlink(missing_ok=True)
