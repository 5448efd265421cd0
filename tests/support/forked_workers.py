"""Celery processes that are forked from one that has imported the libraries: a start costs half a second of CPU time,
and not two or three."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
#: What a worker imports, but for its own modules: those each process imports itself, in a quarter of a second, so that
#: no two share what a module makes when it is imported, such as the worker's id.
_CONTEXT.set_forkserver_preload(
    [
        "celery.__main__",
        "celery.bin.celery",
        "celery.apps.beat",
        "celery.apps.worker",
        "flower.command",  # a command of `celery`
        "httpx2",
        "kombu.transport.redis",
        "labelmill.core.database.tables",
        "labelmill.core.jobs.dispatch",
        "labelmill.core.queue.sender",
        "labelmill.core.readers.rows",
        "labelmill.core.settings",
        "labelmill.core.storage.opening",
        "mistralai.client",
        "numpy",
        "psycopg",
        "pyreqwest.client",
        "scipy.optimize",
        "sqlalchemy.dialects.postgresql.psycopg",
        "sqlalchemy.dialects.sqlite",
        "structlog",
        "uvloop",
    ]
)


class ForkedCelery:
    """`celery *arguments` in a folder, with an environment of its own. It leads a process group of its own. Its methods
    are those of `subprocess.Popen`.

    It ends as an interpreter ends: it waits for threads and runs what is registered with `atexit`.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path) -> None:
        self._process = _CONTEXT.Process(target=_become, args=(list(arguments), dict(environment), log, folder))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """As the kernel's out-of-memory killer does."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout_s: float | None = None) -> int:
        self._process.join(timeout_s)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("celery", timeout_s or 0)
        return code


def _become(arguments: list[str], environment: dict[str, str], log: Path, folder: Path) -> None:
    """In the child: be `celery *arguments`."""
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["celery", *arguments]
    from celery.__main__ import main  # noqa: PLC0415 - imported before the fork

    try:
        main()
    finally:
        atexit._run_exitfuncs()
