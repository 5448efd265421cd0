"""Worker processes that are forked from one that has imported what they need: a start costs a fifth of a second of CPU
time, and not the seconds that importing takes."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "celery.__main__",
        "celery.bin.celery",
        "celery.apps.worker",
        "kombu.transport.redis",
        "sqlalchemy.dialects.sqlite",
        "labelmill_worker.mistral.batch_jobs",  # all of the worker but `app`, which reads the environment
        "labelmill_worker.runtime.bootstrap",
        "labelmill_worker.runtime.celery_app",
        "labelmill_worker.inference.batch_mode.poller",
        "labelmill_worker.runtime.health_check",
        "labelmill_worker.runtime.signals",
        "labelmill_worker.runtime.tasks.registry",
        "labelmill_worker.runtime.tasks.classify",
        "labelmill_worker.runtime.tasks.evaluate",
        "labelmill_worker.runtime.tasks.prepare",
        "labelmill_worker.runtime.tasks.train",
    ]
)


class ForkedWorkers:
    """One worker process after the other, with logs of their own in a folder."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, dict(os.environ) | environment
        self._started = 0
        self._process: multiprocessing.process.BaseProcess | None = None

    def start(self) -> None:
        self._started += 1
        log = self._folder / f"worker-{self._started}.log"
        arguments = (f"w{self._started}@%h", self._environment, log)
        process = _CONTEXT.Process(target=_work, args=arguments)
        process.start()
        self._process = process

    def kill(self) -> None:
        """As the kernel's out-of-memory killer does."""
        if self._process is not None:
            self._process.kill()
            self._process.join(10)

    def logs(self) -> str:
        """The ends of their logs."""
        return "\n".join(path.read_text()[-1500:] for path in sorted(self._folder.glob("worker-*.log")))


def _work(name: str, environment: dict[str, str], log: Path) -> None:
    """In the child: be a worker."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(log.parent)
    queues = ["-Q", "prepare,train,classify", "-c", "2", "--pool", "threads"]
    sys.argv = ["celery", "-A", "labelmill_worker.app", "worker", *queues, "-n", name]
    from celery.__main__ import main  # noqa: PLC0415 - imported before the fork

    main()
