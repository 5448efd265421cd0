"""Picks the storage by the settings."""

from __future__ import annotations

from pathlib import Path

from labelmill.contracts.errors import InvalidInput
from labelmill.core.settings import Settings
from labelmill.core.storage.base import Storage
from labelmill.core.storage.local import LocalStorage


def open_storage(settings: Settings) -> Storage:
    """The storage of `LABELMILL_DATA_DIR`. Connects to nothing. Raises InvalidInput."""
    if "://" in settings.data_dir:
        raise InvalidInput("LABELMILL_DATA_DIR must be a folder that producer and workers share, not a URL, for now")
    return LocalStorage(Path(settings.data_dir))
