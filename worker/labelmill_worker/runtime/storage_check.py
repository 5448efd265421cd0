"""Whether this worker can use the storage of files: its settings at the start, the storage itself for `doctor`."""

from __future__ import annotations

import sys
import tempfile
import threading

from labelmill.contracts.errors import InvalidInput, LabelmillError, StorageRefused
from labelmill.core.settings import Settings
from labelmill.core.storage.new_files import make_private_folder
from labelmill.core.storage.opening import open_storage

_BUCKET_S = 5.0  #: A bucket that takes longer does not answer, as far as `doctor` is concerned.


class BucketCheck:
    """Why the bucket cannot be used, as far as it is known: a server that says nothing holds one thread, and nobody
    else."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self.trouble: str | None = None

    def renew(self, settings: Settings, within_s: float = _BUCKET_S) -> None:
        """Look again, for so long at most."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._look, args=(settings,), name="bucket-check", daemon=True)
            self._thread.start()
        self._thread.join(within_s)
        if self._thread.is_alive():
            self.trouble = f"{settings.data_dir} does not answer within {within_s:g} s"

    def _look(self, settings: Settings) -> None:
        self.trouble = bucket_trouble(settings)


def check_storage_at_start(settings: Settings) -> None:
    """End a worker whose settings name no usable storage, with one sentence. Connects to nothing."""
    try:
        open_storage(settings)
        _ = settings.sql_url
    except (InvalidInput, StorageRefused) as error:
        sys.stderr.write(f"error: {error.message}\n")
        raise SystemExit(error.exit_code) from error


def folder_trouble(settings: Settings) -> str | None:
    """Why the data folder cannot be written to; None where it can, and where files lie in S3."""
    if settings.is_remote:
        return None
    try:
        make_private_folder(settings.data_path)
        with tempfile.TemporaryFile(dir=settings.data_path) as file:
            file.write(b"x")
    except OSError as error:
        return f"{settings.data_path} cannot be written to: {error.strerror}"
    return None


def bucket_trouble(settings: Settings) -> str | None:
    """Why the bucket cannot be written and read; None where it can, and where files lie in a folder. May take as long
    as the server does."""
    if not settings.is_remote:
        return None
    try:
        open_storage(settings).check()
    except LabelmillError as error:
        return error.message
    except OSError as error:
        return f"{settings.data_dir} cannot be read: {error.strerror}"
    return None
