"""Starts Celery processes by forking one that has most of it imported: a start costs two tenths of a second, not three.

A hundred seeds kill some hundreds of workers, and on two cores importing would take most of the time. What is forked
runs `celery -A labelmill_worker.app …` from its beginning, with an environment of its own.

    runner ── one JSON line a command ──► forker ── fork ──► celery worker
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

CHUNK_TEXTS = 120
HOLD = "LABELMILL_CHAOS_HOLD"  #: Names the file that makes preparations long.

_IMPORTED = (
    "celery.__main__",
    "celery.bin.celery",
    "celery.apps.worker",
    "celery.apps.beat",
    "kombu.transport.redis",
    "datasets",
    "datasets.arrow_writer",
    "labelmill.core.chunks.writer",
    "labelmill.core.jobs.dispatch",
    "labelmill.core.queue.sender",
    "labelmill.core.readers.rows",
    "labelmill.core.settings",
    "labelmill.core.storage.opening",
    "mistralai.client",
    "psycopg",
    "pyreqwest.client",
    "sklearn.metrics",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    "structlog",
    "uvloop",
)
#: The rest of the worker makes its id when it is imported, which each process does for itself.
_OF_THE_WORKER = ("ports", "mistral", "store", "inference.strategies", "inference.models")


class Forker:
    """The runner's side. One for all lanes; its methods may be called from any thread."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ) | dict(environment or {}),
            start_new_session=True,
        )

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path) -> int:
        """Start `celery *arguments`. Returns its process id."""
        asked = {"arguments": list(arguments), "environment": dict(environment), "log": str(log), "folder": str(folder)}
        return int(self._ask(asked)["pid"])

    def exit_code(self, pid: int) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        code = self._ask({"ended": pid})["code"]
        return None if code is None else int(code)

    def close(self) -> None:
        """End the forker. What it started must have ended."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None  # noqa: S101 - it was asked for
            self._process.stdin.close()
        self._process.wait(20)

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            assert self._process.stdin is not None  # noqa: S101 - as above
            assert self._process.stdout is not None  # noqa: S101 - as above
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            return dict(json.loads(self._process.stdout.readline()))


def _import() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    for layer in _OF_THE_WORKER:
        package = importlib.import_module(f"labelmill_worker.{layer}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    assert "labelmill_worker.process.ability" not in sys.modules  # noqa: S101 - it has the worker's id
    small_chunks()


def small_chunks() -> None:
    """Let a batch of a thousand texts be as many chunks as one of a million usually is, in this process and its
    children."""
    from labelmill.core.chunks import sizes  # noqa: PLC0415 - what is forked has it already

    sizes.CHUNK_TEXTS = sizes.PROMPTED_TEXTS = CHUNK_TEXTS


def long_preparations() -> None:
    """Let the preparation of a source named `held…` go on as long as the file that `HOLD` names exists, in this
    process."""
    from labelmill_worker.prepare import preparation  # noqa: PLC0415 - with the worker's id, by each process
    from labelmill_worker.prepare.dataset import prepare_dataset  # noqa: PLC0415 - as above

    prepare: Any = prepare_dataset

    def held(spec: Any, sources: Any, *arguments: Any, on_progress: Any, **options: Any) -> Any:
        while any("held" in source.name for source in sources) and Path(os.environ[HOLD]).exists():
            on_progress(0)
            time.sleep(0.05)
        return prepare(spec, sources, *arguments, on_progress=on_progress, **options)

    vars(preparation)["prepare_dataset"] = held


def _become(asked: dict[str, Any]) -> None:
    """In the child: be `celery …`. Never returns."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(asked["folder"])
        sys.argv = ["celery", *asked["arguments"]]
        long_preparations()
        from celery.__main__ import main  # noqa: PLC0415 - imported long ago

        main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
    except BaseException:  # noqa: BLE001 - nothing may go back into the forker's loop
        import traceback  # noqa: PLC0415 - rarely needed

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    _import()
    ended: dict[int, int] = {}

    def reap(number: int, frame: FrameType | None) -> None:
        del number, frame
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                ended[found[0]] = os.waitstatus_to_exitcode(found[1])

    signal.signal(signal.SIGCHLD, reap)
    for line in sys.stdin:
        asked = json.loads(line)
        if "ended" in asked:
            answer: dict[str, Any] = {"code": ended.get(asked["ended"])}
        else:
            pid = os.fork()
            if pid == 0:
                _become(asked)
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
