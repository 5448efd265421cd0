"""Starts of processes that no signal interrupts half-way."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_ENDING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Handlers of SIGINT and SIGTERM run when the block has ended.

    A handler that raises inside of `subprocess.Popen` would lose the process: it runs, and nobody can end it. Keep what
    was started inside of the block. Outside of the main thread, where handlers never run, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    try:
        with contextlib.ExitStack() as afterwards:
            for number in _ENDING:
                if callable(handler := signal.getsignal(number)):
                    signal.signal(number, lambda number, _: arrived.append(number))
                    # each in any case: one that is told at once may raise
                    afterwards.callback(signal.signal, number, handler)
            yield
    finally:
        for late in arrived:
            signal.raise_signal(late)
