"""PgBouncer in transaction mode in front of a PostgreSQL of the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from labelmill_ops.ports import LOOPBACK, free_port

_CONFIGURATION = """
[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = 6
max_client_conn = 200
"""


_ATTEMPTS = 3  # a free port can be taken by another process before the pooler listens on it


def find_pgbouncer() -> str | None:
    """The program, which Debian keeps in a folder on root's PATH only."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


class PgBouncer:
    """One pooler with its own temporary folder; it has few connections to the server, shared by all clients."""

    def __init__(self, server_port: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="labelmill-pgb-"))
        self.port = 0  # the first start chooses one
        self._server_port = server_port
        users, configuration = self._folder / "users.txt", self._folder / "pgbouncer.ini"
        users.write_text('"postgres" ""\n"mill" ""\n')
        configuration.touch()
        self._account: dict[str, Any] = {}
        if os.geteuid() == 0:  # it refuses to run as root
            nobody = pwd.getpwnam("nobody")
            self._account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            for path in (self._folder, users, configuration):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@{LOOPBACK}:{self.port}/{database}"

    def start(self) -> None:
        """On the port that it had, where it was started before."""
        for _ in range(1 if self.port else _ATTEMPTS):
            port = self.port or free_port()
            if self._try_start(port):
                self.port = port
                return
        raise AssertionError((self._folder / "log").read_text())

    def _try_start(self, port: int) -> bool:
        program, configuration = find_pgbouncer(), self._folder / "pgbouncer.ini"
        assert program
        configuration.write_text(
            _CONFIGURATION.format(
                host=LOOPBACK, server_port=self._server_port, port=port, users=self._folder / "users.txt"
            )
        )
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, str(configuration)],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._account,
            )
        deadline = time.monotonic() + 60
        # by its own word: another server may have taken the port
        while "process up" not in (self._folder / "log").read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                return False
            time.sleep(0.02)
        return True

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
