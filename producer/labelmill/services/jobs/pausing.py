"""How a service that follows a job pauses between two reads: by sleeping, unless the caller knows another way."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar

#: Of this thread's context. It may raise, which ends what is followed.
pause_by: ContextVar[Callable[[float], object]] = ContextVar("pause_by", default=time.sleep)


def pause(seconds: float) -> None:
    """Pause in the caller's way."""
    pause_by.get()(seconds)
