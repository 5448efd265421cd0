"""Picks the storage by the settings, and says what this process may open behind URLs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pydantic import SecretStr

from labelmill.core.addresses.s3 import read_s3_location
from labelmill.core.settings import Settings
from labelmill.core.storage.base import Storage
from labelmill.core.storage.cache import FileCache
from labelmill.core.storage.local import LocalStorage
from labelmill.core.storage.remote import RemoteFiles, S3Options, require_s3
from labelmill.core.storage.s3 import S3Storage


def open_storage(settings: Settings, files: RemoteFiles | None = None) -> Storage:
    """The storage of `LABELMILL_DATA_DIR`. Connects to nothing. Raises StorageRefused without the extra for S3."""
    if not settings.is_remote:
        return LocalStorage(settings.data_path)
    require_s3()
    folder = settings.cache_dir or Path(tempfile.gettempdir()) / f"labelmill-cache-{os.getuid()}"
    cache = FileCache(folder.absolute(), settings.cache_mb << 20)
    return S3Storage(read_s3_location(settings.data_dir), files or remote_files(settings), cache)


def remote_files(settings: Settings) -> RemoteFiles:
    """What this process may open behind URLs."""
    options = S3Options(
        _secret(settings.aws_access_key_id),
        _secret(settings.aws_secret_access_key),
        _secret(settings.aws_session_token),
        settings.aws_endpoint_url,
        settings.aws_region,
    )
    return RemoteFiles(options, settings.allowed_schemes)


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value().strip() or None if value is not None else None
