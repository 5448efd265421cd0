"""Ends the children of a supervisor that was killed before it could end them itself.

A process of its own holds the reading end of a pipe. The supervisor writes the children's ids into it; when the pipe
breaks the supervisor is gone, however it died, and what is still listed is asked to end and then killed. Unlike
Linux's parent-death signal this works on macOS too, and does not depend on the thread that started the child.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time


class Guard:
    """Start before the first child; tell it of each. `grace_s`: how long orphans have to end by themselves."""

    def __init__(self, grace_s: float) -> None:
        reading, self._writing = os.pipe()  # not inherited by children: they must not keep the pipe open
        # -S, -E: nothing but the standard library, so it starts in milliseconds and outlives a broken environment
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", __file__, str(grace_s)],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(reading)

    def watch(self, pid: int) -> None:
        """`pid` leads a process group that must not outlive us."""
        self._tell(f"+{pid}\n")

    def forget(self, pid: int) -> None:
        """`pid` has ended; its number may soon be another process's."""
        self._tell(f"-{pid}\n")

    def _tell(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # the guard was killed from outside: work goes on without it
            os.write(self._writing, line.encode())

    def close(self) -> None:
        """Let the guard go. Children that are still listed are ended."""
        os.close(self._writing)
        self._process.wait()


def _signal_group(pid: int, number: int) -> bool:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _stand_guard(grace_s: float) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the pipe says when the work is over
    watched: set[int] = set()
    for line in sys.stdin:
        (watched.add if line[0] == "+" else watched.discard)(int(line[1:]))
    left = {pid for pid in watched if _signal_group(pid, signal.SIGTERM)}
    deadline = time.monotonic() + grace_s
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = {pid for pid in left if _signal_group(pid, 0)}
    for pid in left:
        _signal_group(pid, signal.SIGKILL)


if __name__ == "__main__":
    _stand_guard(float(sys.argv[1]))
