"""Long work (preparations, fits, measuring) on at most so many of a worker's slots that one is left for short tasks.

Where none is free the message is acknowledged and the job left to recovery; a worker that finishes long work sends the
job that is overdue for longest, so that a slot that becomes free is used at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from sqlalchemy.engine import Engine

from labelmill.contracts.errors import LabelmillError, Retryable
from labelmill.contracts.messages import JobMessage
from labelmill.core.jobs.tables import LEASED_TASKS
from labelmill.core.queue.sender import MessageSender
from labelmill_worker.process.draining import is_draining
from labelmill_worker.store.stalled import take_overdue_job


class NoFreeSlot(Retryable):
    """All of this worker's slots for long work are taken."""

    code = "no_free_slot"


class Slots(Protocol):
    """Takes one of a number of slots, without waiting. Returns the function that releases it; None: all are taken."""

    def take(self) -> Callable[[], None] | None: ...


class ThreadSlots:
    """Slots that the threads of one process share."""

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)

    def take(self) -> Callable[[], None] | None:
        return self._free.release if self._free.acquire(blocking=False) else None


class ForkedSlots:
    """Slots that processes share that are forked after they were made. The kernel releases the slot of a process that
    is killed."""

    def __init__(self, count: int) -> None:
        self._count = count
        # a file of no name, open as long as the worker lives: each slot is a lock on one byte of it
        self._file, path = tempfile.mkstemp(prefix="labelmill-slots-")
        Path(path).unlink()

    def take(self) -> Callable[[], None] | None:
        for slot in range(self._count):
            with contextlib.suppress(BlockingIOError, PermissionError):
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
                return lambda slot=slot: fcntl.lockf(self._file, fcntl.LOCK_UN, 1, slot)  # type: ignore[misc]
        return None


class _Unlimited:
    """Before a worker has said how many slots it has."""

    def take(self) -> Callable[[], None] | None:
        return lambda: None


_slots: Slots = _Unlimited()


def limit_long_work(slots: Slots) -> None:
    """Of this process, and of those that are forked from it later on."""
    global _slots  # noqa: PLW0603 - a worker has one pool
    _slots = slots


@contextlib.contextmanager
def long_slot(engine: Engine, sender: MessageSender) -> Iterator[None]:
    """Hold a slot for long work. Raises NoFreeSlot."""
    release = _slots.take()
    if release is None:
        raise NoFreeSlot("every slot for long work is taken")
    try:
        yield
    finally:
        release()
        _send_overdue(engine, sender)


def _send_overdue(engine: Engine, sender: MessageSender) -> None:
    if is_draining():
        return
    with contextlib.suppress(LabelmillError):  # a sweep sends it
        for task, table in LEASED_TASKS:
            job_id = take_overdue_job(engine, table)
            if job_id is not None:
                sender.send(task, [JobMessage(job_id=job_id)])
