"""A throw-away PostgreSQL server on loopback, from the binaries of the machine, for tests and benchmarks.

It is not durable (`fsync=off`) and asks for no password: never keep anything in it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill_ops.held_signals import signals_held
from labelmill_ops.ports import LOOPBACK, free_port

_DEBIAN = Path("/usr/lib/postgresql")  # Debian keeps the server's programs off the PATH
_USER = "postgres"
_ATTEMPTS = 3  # a free port can be taken by another process before the server listens on it


def find_programs() -> Path:
    """The folder of `initdb` and `postgres`, the newest version first. Raises DatabaseUnavailable: there is none."""
    for folder in sorted(_DEBIAN.glob("*/bin"), key=_version, reverse=True):
        if (folder / "initdb").exists():
            return folder
    for name in ("postgres", "initdb"):
        program = shutil.which(name)
        if program and (Path(program).resolve().parent / "initdb").exists():
            return Path(program).resolve().parent
    raise DatabaseUnavailable("PostgreSQL's server programs (initdb, postgres) were not found")


def _version(folder: Path) -> int:
    number = re.match(r"\d+", folder.parent.name)
    return int(number[0]) if number else 0


def _as_ordinary_user() -> dict[str, Any]:
    # the server refuses to run as root
    if os.geteuid() != 0:
        return {}
    for name in (_USER, "nobody"):
        with contextlib.suppress(KeyError):
            account = pwd.getpwnam(name)
            return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    raise DatabaseUnavailable("PostgreSQL does not run as root, and this machine has no ordinary user")


class EmbeddedPostgres:
    """One server with its own temporary folder; use it as a context manager or by `start` and `stop`.

    With `survives_crash` what was committed is there after `halt(SIGQUIT)`, though not after a crash of the machine.
    """

    def __init__(self, *, survives_crash: bool = False, environment: Mapping[str, str] | None = None) -> None:
        self._survives_crash = survives_crash
        self._environment = dict(os.environ) | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self.port = 0

    @property
    def version(self) -> int:
        """The server's major version, once it was started."""
        assert self._folder is not None  # noqa: S101 - `start` made it
        return int((self._folder / "cluster" / "PG_VERSION").read_text())

    def url(self, database: str = _USER) -> str:
        """Where clients connect."""
        return f"postgresql://{_USER}@{LOOPBACK}:{self.port}/{database}"

    def start(self, timeout_s: float = 60) -> None:
        """Make a cluster, start it and wait until it takes connections. Raises DatabaseUnavailable."""
        try:
            self._make_cluster()
            for _ in range(_ATTEMPTS):
                self.port = free_port()
                if self._launch(timeout_s):
                    return
            raise self._did_not_start()
        except BaseException:  # told to end in the meantime, or it does not start
            self.stop()
            raise

    def _make_cluster(self) -> None:
        programs = find_programs()
        account = _as_ordinary_user()
        # a short path (sockets have a limit), open to the account that the server runs under
        self._folder = Path(tempfile.mkdtemp(prefix="labelmill-pg-"))
        if account:
            os.chown(self._folder, account["user"], account["group"])
        cluster = self._folder / "cluster"
        made = subprocess.run(
            [programs / "initdb", "-D", cluster, "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **account,
        )
        if made.returncode:
            raise DatabaseUnavailable(f"initdb failed: {made.stderr.strip().splitlines()[-1:]}")

    def _launch(self, timeout_s: float) -> bool:
        programs, account = find_programs(), _as_ordinary_user()
        assert self._folder is not None  # noqa: S101 - `start` made it
        cluster = self._folder / "cluster"
        options = {
            "listen_addresses": LOOPBACK,
            "port": self.port,
            "unix_socket_directories": self._folder,
            "fsync": "off",
            "synchronous_commit": "on" if self._survives_crash else "off",
            "full_page_writes": "off",
            "max_connections": 200,
            "shared_buffers": "128MB",
        }
        with (self._folder / "log").open("ab") as log, signals_held():
            self._process = subprocess.Popen(
                [programs / "postgres", "-D", cluster, *(f"--{key}={value}" for key, value in options.items())],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._environment,
                **account,
            )
        deadline = time.monotonic() + timeout_s
        while not self._takes_connections(cluster):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.halt(signal.SIGQUIT)
                return False
            time.sleep(0.05)
        return True

    def _did_not_start(self) -> DatabaseUnavailable:
        assert self._folder is not None  # noqa: S101 - `start` made it
        said = (self._folder / "log").read_text(errors="replace").strip().splitlines()
        return DatabaseUnavailable(f"PostgreSQL did not start: {said[-1] if said else 'it said nothing'}")

    def _takes_connections(self, cluster: Path) -> bool:
        with (
            contextlib.suppress(psycopg.OperationalError),
            psycopg.connect(self.url(), connect_timeout=2) as connection,
        ):
            # another server may have taken the port, and ours may be about to fail
            served = connection.execute("SHOW data_directory").fetchone()
            return served is not None and Path(served[0]) == cluster
        return False

    def execute(self, statement: str) -> None:
        """Run one statement of the administrator's, outside of a transaction."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def halt(self, number: int = signal.SIGINT) -> None:
        """End the server and keep what it holds: SIGINT is its fast shutdown, SIGQUIT an end as by a crash."""
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def resume(self, timeout_s: float = 60) -> None:
        """Start it again after `halt`, on the same port. Does nothing while it runs."""
        if self._process is None and not self._launch(timeout_s):
            error = self._did_not_start()
            self.stop()
            raise error

    def stop(self) -> None:
        """End the server at once and remove its folder."""
        self.halt(signal.SIGQUIT)  # nothing of it is needed any more, and while it starts it does not heed SIGINT
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
