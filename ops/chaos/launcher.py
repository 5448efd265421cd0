"""Starts Celery processes anew instead of forking them, under a time of day that can be set.

Every process of the stack goes by it, Redis and PostgreSQL too, as on a machine whose clock is set; not the runner. A
few lines of C are preloaded, for which a compiler must be there: libfaketime breaks `time.sleep` of Python 3.11.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_SOURCE = Path(__file__).with_name("settable_clock.c")


class Clock:
    """The clock of a stack, as seconds that it is ahead of the real one."""

    def __init__(self, folder: Path) -> None:
        self._file, self._library = folder / "clock", folder / "settable_clock.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", self._library, _SOURCE, "-ldl"], check=True)
        self.set(0)

    @staticmethod
    def can_be_set() -> bool:
        """Whether there is a C compiler, and a loader that preloads."""
        return sys.platform == "linux" and shutil.which("cc") is not None

    def set(self, ahead_s: int) -> None:
        """From now on, for everybody."""
        with self._file.open("r+b" if self._file.exists() else "w+b") as file:  # it is mapped: one write of 8 bytes
            file.write(struct.pack("@l", ahead_s))

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process go by it."""
        return {"LD_PRELOAD": str(self._library), "LABELMILL_CHAOS_CLOCK": str(self._file)}


class Launcher:
    """Like `Forker`, three seconds slower."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path) -> int:
        """Start `celery *arguments`. Returns its process id."""
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", *arguments],
                env=dict(environment) | self._clock.environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._started[process.pid] = process
        return process.pid

    def exit_code(self, pid: int) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._started[pid].poll()
