"""The addresses of a running `labelmill up`, for the commands of the same user: `stack.json` in the data folder.

The file decides which Redis and which database a command uses. It is trusted only if no other user can have written it,
and only while the process that wrote it runs. Workers never read it: `up` passes them their settings.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STACK_FILE = "stack.json"
_MAX_BYTES = 64 << 10
_WRITER = ("pid", "started", "boot_id")


def write_stack_file(data_dir: Path, addresses: Mapping[str, object]) -> Path:
    """Write that this process runs a stack at `addresses`. Returns the file; the caller removes it at the end."""
    writer = (os.getpid(), _start_time(os.getpid()), _boot_id())
    target = data_dir / STACK_FILE
    handle, temporary = tempfile.mkstemp(dir=data_dir, prefix=STACK_FILE)  # mode 0600
    with os.fdopen(handle, "w") as file:
        json.dump({**dict(zip(_WRITER, writer, strict=True)), **addresses}, file, indent=2)
    Path(temporary).replace(target)
    return target


def running_stack(data_dir: Path) -> dict[str, Any] | None:
    """The addresses of the `labelmill up` of this user that runs on this machine and this data folder, or None."""
    try:
        written = json.loads(_read_own(data_dir / STACK_FILE))
        pid, started, boot_id = (written.pop(name) for name in _WRITER)
        os.kill(int(pid), 0)  # PermissionError: another user's process has reused the pid
    except (OSError, ValueError, KeyError, AttributeError, TypeError, OverflowError):
        return None
    if boot_id != _boot_id() or started != _start_time(int(pid)):
        return None
    return dict(written)


class StackFile:
    """Tells whether another `labelmill up` has begun to run on a data folder, by the state of its file."""

    def __init__(self, data_dir: Path) -> None:
        self._path = str(data_dir / STACK_FILE)
        self._noted = self.version()

    def version(self) -> tuple[int, int] | None:
        """What differs between the files of two stacks; None: there is no file."""
        try:
            status = os.stat(self._path)  # noqa: PTH116 - asked before each call of a client
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def has_changed(self) -> bool:
        """Whether there is a file of another version than the noted one."""
        return self.version() not in (None, self._noted)

    def note(self, version: tuple[int, int] | None) -> None:
        """Note the version that was read."""
        self._noted = version


def _read_own(path: Path) -> bytes:
    """The file's content. Raises OSError unless it is a plain file that only this user can read or write."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would have us wait
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) != 0o600:
            raise PermissionError(f"{path} may have been written by another user")
        return file.read(_MAX_BYTES)


def _boot_id() -> str:
    """The id of this machine's boot: a file copied or shared from another machine has another id."""
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return _output_of("sysctl", "-n", "kern.bootsessionuuid")


def _start_time(pid: int) -> str:
    """When the process started: a later process that reuses the pid has another time. Raises OSError."""
    if sys.platform == "linux":
        # the second field, the program's name, may hold blanks and brackets
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return _output_of("ps", "-o", "lstart=", "-p", str(pid))


def _output_of(*command: str) -> str:
    completed = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    return completed.stdout.strip()
