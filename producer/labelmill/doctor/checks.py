"""One check and its result."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


class Status(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"  #: It works, and may not for long.
    FAILED = "failed"  #: Something does not work.
    UNKNOWN = "unknown"  #: It could not be checked because of another fault, which has its own check.


@dataclass(frozen=True)
class Check:
    """`remedy` is empty where nothing is to be done. `exit_code`: of a command that meets this fault."""

    name: str
    status: Status
    summary: str
    remedy: str = ""
    exit_code: int = 1


def ok(name: str, summary: str) -> Check:
    """All is well."""
    return Check(name, Status.OK, summary)


def warning(name: str, summary: str, remedy: str) -> Check:
    """It works, and may not for long."""
    return Check(name, Status.WARNING, summary, remedy)


def failed(name: str, summary: str, remedy: str, exit_code: int = 1) -> Check:
    """It does not work."""
    return Check(name, Status.FAILED, summary, remedy, exit_code)


def unknown(name: str, summary: str, remedy: str) -> Check:
    """It could not be checked; `remedy` names the obstacle."""
    return Check(name, Status.UNKNOWN, summary, remedy)


def within(timeout_s: float, check: Callable[[], T]) -> T:
    """What `look` returns or raises. Raises TimeoutError after `timeout_s`; it is left behind in a thread that does not
    keep the process from ending."""
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(check())
        except BaseException as error:  # noqa: BLE001 - raised again below
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise TimeoutError
    if raised:
        raise raised[0]
    return returned[0]
