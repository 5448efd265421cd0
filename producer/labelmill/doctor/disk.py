"""The data folder: room, and whether it can be written to."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from labelmill.doctor.checks import Check, failed, ok, warning

_FULL_BYTES, _NEARLY_FULL_BYTES = 100 << 20, 1 << 30


def look_at_disk(data_dir: str) -> Check:
    """Write a byte and count what is free."""
    if "://" in data_dir:
        return ok("disk", "the data folder is no local one; workers say whether they can write")
    folder = Path(data_dir).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return failed(
            "disk",
            f"{folder} cannot be written to: {error.strerror}",
            "make room, or choose another LABELMILL_DATA_DIR",
        )
    if free < _FULL_BYTES:
        return failed("disk", f"{free >> 20} MB are free for {folder}", "make room")
    if free < _NEARLY_FULL_BYTES:
        return warning("disk", f"{free >> 20} MB are free for {folder}", "make room")
    return ok("disk", f"{free >> 30} GB are free for {folder}, and it can be written to")
