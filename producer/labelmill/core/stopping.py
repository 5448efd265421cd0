"""How a submission ends whose caller has stopped waiting for it, before its job can start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from labelmill.contracts.errors import Permanent

T = TypeVar("T")

#: Of this thread's context: whether the caller has stopped waiting. None: it waits until the call has ended.
has_stopped: ContextVar[Callable[[], bool] | None] = ContextVar("has_stopped", default=None)


def require_caller() -> None:
    """Raise Permanent when nobody waits for the submission any more: a job that its caller does not know would be paid
    for."""
    if (stopped := has_stopped.get()) is not None and stopped():
        raise Permanent("the caller stopped waiting before the submission was complete")


def while_waited_for(rows: Iterable[T]) -> Iterable[T]:
    """The same rows; those that are made one by one end with Permanent as soon as the caller has stopped waiting."""
    return rows if has_stopped.get() is None or not isinstance(rows, Iterator) else _checked(rows)


def _checked(rows: Iterator[T]) -> Iterator[T]:
    for row in rows:
        require_caller()
        yield row
