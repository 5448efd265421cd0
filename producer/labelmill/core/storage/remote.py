"""Files behind URLs, through fsspec: read as streams, written as multipart uploads that are completed at the end.

fsspec and s3fs are an extra and slow to import: they are loaded when a URL is first used. Their errors become ours in
`remote_faults`.
"""

from __future__ import annotations

import contextlib
import glob
import importlib
import io
import os
import posixpath
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Literal, cast

from labelmill.contracts.bounds import plain
from labelmill.contracts.errors import InvalidInput, StorageRefused, StorageUnavailable
from labelmill.core.addresses.s3 import read_s3_location
from labelmill.core.storage.remote_faults import code_of, translated_errors
from labelmill.core.storage.s3_listing import matching_keys

READ_BYTES = 8 << 20  #: Of a file, in memory.
WRITE_BYTES = 16 << 20  #: A part of an upload; S3 takes 10,000 of them.
_BUFFER_BYTES = 1 << 20
_CONNECT_S, _READ_S, _ATTEMPTS = 5, 30, 3
_ATTEMPTS_OF_S3FS = 2
_VERSION = "?versionId="
_INSTALL = 'pip install "labelmill[s3]"'


@dataclass(frozen=True)
class S3Options:
    """How S3 is reached. What is None is looked up as every AWS program does it: profiles, roles of a machine."""

    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    endpoint_url: str | None = None
    region: str | None = None


@dataclass(frozen=True)
class RemoteUrl:
    """The URL of a file to write."""

    url: str

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.url.rstrip("/").rpartition("/")[2]

    def __str__(self) -> str:
        return self.url


def is_url(text: str) -> bool:
    """Whether a source or an output is a URL and not a path."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme.isascii() and scheme.replace("+", "").replace("-", "").isalnum()


def s3_object(url: str) -> tuple[str, str] | None:
    """The bucket and the key that a URL names, to be compared: the same for keys that servers may take for one, such as
    `a//b` and `a/b`. None: it is not an address of S3."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("s3", "s3a"):
        return None
    bucket, _, key = rest.partition("/")
    return bucket, posixpath.normpath(f"/{key}").lstrip("/")


class RemoteFile:
    """A file behind a URL."""

    def __init__(self, files: RemoteFiles, url: str) -> None:
        self._files = files
        self.url = url

    @property
    def name(self) -> str:
        """The last part of its path."""
        path = self.url if s3_object(self.url) else self.url.partition("?")[0]  # elsewhere a query begins
        return PurePosixPath(path).name or self.url

    def open(self, mode: Literal["rb"], buffering: int = -1) -> BinaryIO:
        """Its bytes, read as they are needed. Raises FileNotFoundError, StorageUnavailable, StorageRefused."""
        del mode, buffering
        return self._files.open(self.url)

    def __str__(self) -> str:
        return self.url


class RemoteFiles:
    """What this process may open behind URLs: `s3://`, and the schemes that the operator allows. Connects to nothing
    until it is used."""

    def __init__(self, options: S3Options | None = None, schemes: frozenset[str] = frozenset()) -> None:
        self._options = options or S3Options()
        self._schemes = schemes | {"s3"}
        self._lock = threading.Lock()
        self._systems: dict[tuple[int, str], Any] = {}

    def expand(self, url: str) -> list[RemoteFile]:
        """The files that a URL or a pattern names, sorted. Raises InvalidInput, StorageUnavailable, StorageRefused."""
        system, path = self._system_of(url)
        with translated_errors(url):
            try:
                found = system.info(path)
            except FileNotFoundError as error:
                if code_of(error) == "NoSuchBucket":
                    raise
                if not glob.has_magic(path) or url.lower().startswith("http"):  # no pattern: a ? begins a query
                    raise InvalidInput(f"there is no file {plain(url)}", field="source") from error
            else:
                if found["type"] != "directory":
                    return [RemoteFile(self, url)]
                pattern = f"{url.rstrip('/')}/*.jsonl"
                raise InvalidInput(
                    f"{plain(url)} is a folder; name a file, or a pattern such as {plain(pattern)}", field="source"
                )
            urls = sorted(_matching(system, url, path))
        if not urls:
            raise InvalidInput(f"no file matches {plain(url)}", field="source")
        return [RemoteFile(self, match) for match in urls]

    def open(self, url: str) -> BinaryIO:
        """The bytes of a file, in blocks. Raises FileNotFoundError, StorageUnavailable, StorageRefused."""
        system, path = self._system_of(url)
        with translated_errors(url):
            raw = system.open(path, "rb", block_size=READ_BYTES, cache_type="readahead")
        return cast("BinaryIO", io.BufferedReader(_Reading(raw, url), _BUFFER_BYTES))

    @contextlib.contextmanager
    def writing(self, url: str) -> Iterator[BinaryIO]:
        """An object of S3 that is there, whole, at the end; nothing is after an error or a kill. Raises
        StorageUnavailable, StorageRefused."""
        system, path = self._system_of(url)
        with translated_errors(url):
            raw = system.open(path, "wb", block_size=WRITE_BYTES, autocommit=False)
        try:
            stream = io.BufferedWriter(_Writing(raw, url), _BUFFER_BYTES)
            yield cast("BinaryIO", stream)
            stream.flush()
            with translated_errors(url):
                raw.close()
                raw.commit()
        except BaseException:
            with contextlib.suppress(Exception):  # what led here is the error to report
                raw.discard()
            raw.closed = True  # or it would be uploaded by its destructor
            raise

    def require_writable(self, url: str) -> None:
        """Begin an upload and abort it. Raises InvalidInput, StorageUnavailable, StorageRefused."""
        system, path = self._system_of(url)
        bucket, _, key = path.partition("/")
        with translated_errors(url):
            upload = system.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
            system.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload["UploadId"])

    def s3(self) -> Any:
        """The file system of S3, for calls of its API. Raises StorageRefused."""
        return self._system("s3")

    def _system_of(self, url: str) -> tuple[Any, str]:
        """The file system of a URL, and the path in it. Raises InvalidInput for a scheme that is not allowed."""
        scheme = url.partition("://")[0].lower()
        if scheme not in self._schemes:
            raise InvalidInput(
                f"{scheme}:// is not opened here: name a path or s3://, or allow the scheme with "
                f"LABELMILL_SOURCE_SCHEMES={scheme}"
            )
        if "@" in url.partition("://")[2].partition("/")[0]:  # it is stored with the job
            raise InvalidInput(f"the {scheme}:// address holds a user name or a password: leave them out")
        if "::" in url:
            raise InvalidInput(f"{plain(url)} names a file in a file by ::, which is not opened")
        if scheme == "s3":
            self._require_bucket(url)
            if _VERSION in url:  # s3fs would leave it out and open the object without it
                raise InvalidInput(f"{plain(url)} names a version of an object, and only the newest one is opened")
        system = self._system(scheme)
        # fsspec knows schemes in small letters alone
        return system, str(system._strip_protocol(scheme + url[len(scheme) :]))

    @staticmethod
    def _require_bucket(url: str) -> None:
        bucket = url.partition("://")[2].partition("/")[0]
        try:
            read_s3_location(f"s3://{bucket}")
        except ValueError as error:
            raise InvalidInput(f"this address of S3 cannot be used: {error}") from error

    def _system(self, scheme: str) -> Any:
        # a file system has connections and a thread, which a forked child has not
        place = (os.getpid(), scheme)
        with self._lock:
            if place not in self._systems:
                self._systems[place] = _connected(scheme, self._options)
            return self._systems[place]


def _matching(system: Any, url: str, pattern: str) -> Iterator[str]:
    """The URLs of the files that match a pattern."""
    if not url.lower().startswith("s3:"):
        for name, details in system.glob(pattern, detail=True).items():
            if details["type"] != "directory":
                yield str(system.unstrip_protocol(name))
        return
    bucket, _, pattern_of_keys = pattern.partition("/")
    for key in matching_keys(partial(system.call_s3, Bucket=bucket), pattern_of_keys):
        yield f"s3://{bucket}/{key}"


def _connected(scheme: str, options: S3Options) -> Any:
    try:
        fsspec = importlib.import_module("fsspec")
        if scheme != "s3":
            return fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False)
        s3fs = importlib.import_module("s3fs")
    except ImportError as error:
        if scheme != "s3" and getattr(error, "name", None) != "fsspec":
            raise InvalidInput(f"{scheme}:// cannot be read: {str(error).partition(chr(10))[0]}") from error
        raise StorageRefused(f"{scheme}:// needs s3fs: {_INSTALL}") from error
    except ValueError as error:
        raise InvalidInput(f"{scheme}:// is a scheme that fsspec does not know") from error
    settings: dict[str, Any] = {
        "connect_timeout": _CONNECT_S,
        "read_timeout": _READ_S,
        "retries": {"max_attempts": _ATTEMPTS, "mode": "standard"},
    }
    if options.endpoint_url is not None:
        # servers other than Amazon's need not know the checksums that Amazon's takes since 2025
        settings |= {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
    system = s3fs.S3FileSystem(
        key=options.access_key_id,
        secret=options.secret_access_key,
        token=options.session_token,
        endpoint_url=options.endpoint_url,
        client_kwargs={"region_name": options.region} if options.region else {},
        config_kwargs=settings,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    system.retries = _ATTEMPTS_OF_S3FS  # each of them makes the attempts above
    return system


def require_s3() -> None:
    """Raise StorageRefused where the extra is not installed. Imports nothing."""
    from importlib.util import find_spec  # noqa: PLC0415 - of use here alone

    if find_spec("s3fs") is None:
        raise StorageRefused(f"s3:// needs s3fs: {_INSTALL}")


class _Reading(io.RawIOBase):
    """A file of fsspec, with our errors."""

    def __init__(self, raw: Any, url: str) -> None:
        self._raw = raw
        self._url = url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._raw.seekable())

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with translated_errors(self._url):
            part = self._raw.read(len(buffer))
        if not part and len(buffer) and self._raw.size is not None and self._raw.tell() < self._raw.size:
            raise StorageUnavailable(f"{plain(self._url)} was cut short while it was read")  # not its end
        buffer[: len(part)] = part
        return len(part)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with translated_errors(self._url):
            return int(self._raw.seek(offset, whence))

    def tell(self) -> int:
        return int(self._raw.tell())

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Writing(io.RawIOBase):
    """An upload of fsspec, with our errors. It is completed elsewhere: closing it does nothing."""

    def __init__(self, raw: Any, url: str) -> None:
        self._raw = raw
        self._url = url

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        with translated_errors(self._url):
            return int(self._raw.write(bytes(data)))
