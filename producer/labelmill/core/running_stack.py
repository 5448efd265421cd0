"""What a running `labelmill up` tells the commands of its user: `stack.json` in the data folder.

The file decides which Redis and which database a command speaks to. So it is believed only when nobody else can have
written it, and as long as the process that wrote it runs. Workers never read it: `up` hands them their settings.
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
_MOST_BYTES = 64 << 10
_WRITER = ("pid", "started", "boot_id")


def write_stack_file(data_dir: Path, addresses: Mapping[str, object]) -> Path:
    """Announce that this process runs a stack at `addresses`. Returns the file, which is to be removed at the end."""
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
        os.kill(int(pid), 0)  # PermissionError: it is another user's, who may have got the number since
    except (OSError, ValueError, KeyError, AttributeError, TypeError, OverflowError):
        return None
    if boot_id != _boot_id() or started != _start_time(int(pid)):
        return None
    return dict(written)


def _read_own(path: Path) -> bytes:
    """The file's content. Raises OSError unless it is a plain file that only this user can read or write."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would have us wait
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o600:
            raise PermissionError(f"{path} may have been written by somebody else")
        return file.read(_MOST_BYTES)


def _boot_id() -> str:
    """A name for this run of this machine's kernel: a file that was copied or shared from elsewhere has another."""
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return _output_of("sysctl", "-n", "kern.bootsessionuuid")


def _start_time(pid: int) -> str:
    """When the process began: another one that was given its number later has another time. Raises OSError."""
    if sys.platform == "linux":
        # the second field, the program's name, may hold blanks and brackets
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return _output_of("ps", "-o", "lstart=", "-p", str(pid))


def _output_of(*command: str) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    return ended.stdout.strip()
