"""Checks of the storage: free space, whether it can be written, and who can read it."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import tempfile
from pathlib import Path

from labelmill.contracts.errors import StorageRefused, StorageUnavailable
from labelmill.core.settings import Settings
from labelmill.core.storage.opening import open_storage
from labelmill.doctor.checks import Check, failed, ok, warning

_OTHERS = 0o077  #: Rights of the group and of everybody.
_FULL_BYTES, _NEARLY_FULL_BYTES = 100 << 20, 1 << 30


def check_storage(settings: Settings) -> Check:
    """Write a byte, if the folder or bucket exists, and measure the free space; creates neither."""
    return _check_bucket(settings) if settings.is_remote else _check_folder(settings.data_path.absolute())


def _check_bucket(settings: Settings) -> Check:
    try:
        open_storage(settings).check()
    except StorageRefused as error:
        return failed("disk", error.message, "correct LABELMILL_DATA_DIR or the AWS_ variables")
    except (StorageUnavailable, OSError) as error:
        return failed("disk", str(error), "look at the S3 server, and at AWS_ENDPOINT_URL")
    return ok("disk", f"{settings.data_dir} can be written and read")


def _check_folder(folder: Path) -> Check:
    state = "and it can be written to"
    try:
        if folder.exists():
            place, mode = folder, stat.S_IMODE(folder.stat().st_mode)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"x")
                file.flush()
        else:
            place, mode = next(parent for parent in folder.parents if parent.exists()), 0
            state = "which does not exist yet and can be made"
            if not os.access(place, os.W_OK):
                return failed("disk", f"{folder} cannot be made in {place}", "choose another LABELMILL_DATA_DIR")
        free = shutil.disk_usage(place).free
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
    if mode & _OTHERS:
        return warning(
            "disk",
            f"other users of this machine may enter {folder} (its mode is {mode:o}), where texts and models lie",
            f"chmod 700 {shlex.quote(str(folder))}; leave it where a group shares the folder on purpose",
        )
    return ok("disk", f"{free >> 30} GB are free for {folder}, {state}")
