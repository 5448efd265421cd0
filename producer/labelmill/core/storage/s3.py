"""Files in a bucket of S3, for workers that share no disk.

An object appears when its upload is completed, so it is there whole or not at all. A folder is what SQL refers to: each
attempt of a preparation writes under a name of its own, and only what is recorded counts. What is read more than once
has a local copy, by the object's version or its SHA-256.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal

from labelmill.contracts.errors import Permanent, StorageRefused
from labelmill.core.addresses.s3 import S3Location
from labelmill.core.storage.base import Entry, Measured, NewFolder, Storage, StoredFile, refused_reference
from labelmill.core.storage.cache import DISK_IS_FULL, FileCache
from labelmill.core.storage.remote import RemoteFile, RemoteFiles
from labelmill.core.storage.remote_faults import UploadAborted, translated_errors
from labelmill.core.storage.s3_listing import pages

_BLOCK_BYTES = 1 << 20
_KEYS_AT_ONCE = 1000  #: S3 deletes no more in one call.
_MAX_REFERENCE = 300  #: Characters; S3's keys have at most 1,024 bytes.
_PROBE = "doctor"


class S3File(StoredFile):
    """An object. `sha256`: of the bytes that are wanted; `read_once`: no copy of it is kept."""

    def __init__(self, storage: S3Storage, reference: str, sha256: str | None, *, read_once: bool) -> None:
        super().__init__(reference)
        self._storage = storage
        self._sha256 = sha256
        self._read_once = read_once

    @property
    def address(self) -> str:
        return self._storage.url(self.reference)

    def open(self, mode: Literal["rb"], buffering: int = -1) -> BinaryIO:
        del mode, buffering
        if self._read_once:
            return self._storage.files.open(self.address)
        return self._storage.open_copy(self.reference, self._sha256)

    def exists(self) -> bool:
        return self._storage.version_of(self.reference) is not None

    @contextlib.contextmanager
    def on_disk(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self.name
            with self.open("rb") as original, path.open("wb") as copy:
                shutil.copyfileobj(original, copy, _BLOCK_BYTES)
            yield path


class S3Storage(Storage):
    """Everything under `location`."""

    def __init__(self, location: S3Location, files: RemoteFiles, cache: FileCache) -> None:
        self.location = location
        self.files = files
        self.cache = cache

    def url(self, reference: str) -> str:
        """The URL of a reference."""
        return f"s3://{self.location.bucket}/{self.location.key(reference)}"

    def prepare(self) -> None:
        """Nothing to do: a bucket is made by its owner."""

    def check(self) -> None:
        name = f"{_PROBE}/{secrets.token_hex(8)}"
        with self.writing(name) as file:
            file.write(b"x")
        try:
            with self.files.open(self.url(name)) as written:
                written.read()
        finally:
            self._delete_keys([self.location.key(name)])

    def file(self, reference: str, folder: str, *, sha256: str | None = None, read_once: bool = False) -> S3File:
        if isinstance(reference, str) and len(reference) <= _MAX_REFERENCE and reference.isprintable():
            parts = reference.split("/")
            is_plain = not any(part in ("", ".", "..") for part in (*parts, *folder.split("/")))
            if is_plain and reference.startswith(f"{folder}/"):
                return S3File(self, reference, sha256, read_once=read_once)
        raise refused_reference(reference, folder)

    @contextlib.contextmanager
    def writing(self, reference: str) -> Iterator[BinaryIO]:
        with self.files.writing(self.url(reference)) as stream:
            yield stream

    @contextlib.contextmanager
    def new_folder(self, reference: str) -> Iterator[NewFolder]:
        folder = _NewS3Folder(self, reference)
        try:
            yield folder
        except BaseException:
            with contextlib.suppress(Exception):  # what led here is the error to report; `purge` deletes the rest
                self.delete(reference)
            raise

    def put_folder(self, folder: Path, reference: str) -> dict[str, str]:
        attempt = f"{reference}/{secrets.token_hex(4)}"
        stored = {path.name: f"{attempt}/{path.name}" for path in sorted(folder.iterdir())}
        for name, place in stored.items():
            with (folder / name).open("rb") as original, self.writing(place) as copy:
                shutil.copyfileobj(original, copy, _BLOCK_BYTES)
        return stored

    def keep_only(self, folder: str, references: set[str]) -> None:
        kept = {self.location.key(reference) for reference in references}
        self._delete_keys([item["Key"] for item in self._objects(f"{folder}/") if item["Key"] not in kept])

    @contextlib.contextmanager
    def workspace(self, beside: str) -> Iterator[Path]:
        self.delete_leftovers(beside)
        with self.cache.workspace() as folder:
            try:
                yield folder
            except (OSError, Permanent) as error:  # the latter where the work has a sentence for the former
                cause = error if isinstance(error, OSError) else error.__cause__
                if isinstance(cause, OSError) and cause.errno in DISK_IS_FULL:  # another worker has a disk of its own
                    raise StorageRefused(
                        f"the disk of {self.cache.folder} is full: make room, or set LABELMILL_CACHE_DIR to another one"
                    ) from error
                raise

    def entries(self, folder: str) -> Iterator[Entry]:
        newest: dict[str, float] = {}
        start = len(self.location.key(f"{folder}/"))
        objects = ((item["Key"], item["LastModified"]) for item in self._objects(f"{folder}/"))
        uploads = ((upload["Key"], upload["Initiated"]) for upload in self._uploads(f"{folder}/"))
        for key, modified_at in chain(objects, uploads):
            reference = f"{folder}/{key[start:].partition('/')[0]}"
            newest[reference] = max(newest.get(reference, 0.0), modified_at.timestamp())
        for reference, modified_at in sorted(newest.items()):
            yield Entry(reference, modified_at)

    def measure(self, reference: str) -> Measured:
        sizes = [int(item["Size"]) for item in self._objects_of(reference)]
        return Measured(len(sizes), sum(sizes))

    def delete(self, reference: str) -> Measured:
        found = list(self._objects_of(reference))
        self._delete_keys([item["Key"] for item in found])
        self._abort(upload for upload in self._uploads(reference) if self._belongs(upload["Key"], reference))
        return Measured(len(found), sum(int(item["Size"]) for item in found))

    def leftovers(self, reference: str) -> list[str]:
        """None: an upload that was not completed is no file."""
        del reference
        return []

    def delete_leftovers(self, reference: str) -> None:
        own = self.location.key(reference)
        self._abort(upload for upload in self._uploads(reference) if upload["Key"].startswith((f"{own}/", f"{own}.")))

    def shown(self, reference: str) -> str:
        return self.url(reference)

    def version_of(self, reference: str) -> tuple[str, int] | None:
        """What names an object's bytes, and their number; None: there is no such object."""
        try:
            with translated_errors(self.url(reference)):
                found = self._call("head_object", Key=self.location.key(reference))
        except FileNotFoundError:
            return None
        return f"{found.get('ETag')} {found.get('VersionId')}", int(found["ContentLength"])

    def open_copy(self, reference: str, sha256: str | None) -> BinaryIO:
        """A local copy of an object; the object itself where it is too large for one. Bytes with another SHA-256 than
        the wanted one are not kept. Raises FileNotFoundError."""
        url = self.url(reference)
        if sha256 is None:
            version, size = self._version_of_existing(reference)
            return self._copy(url, f"{url} {version}", lambda: size)
        version = f"{url} {sha256}"

        def size_of() -> int:
            return self._version_of_existing(reference)[1]

        copy = self._copy(url, version, size_of)
        if _sha256_of(copy) == sha256:
            return copy
        copy.close()  # it may be damaged on this disk alone
        self.cache.forget(version)
        copy = self._copy(url, version, size_of)
        if _sha256_of(copy) != sha256:
            self.cache.forget(version)
        return copy

    def _version_of_existing(self, reference: str) -> tuple[str, int]:
        found = self.version_of(reference)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.url(reference))
        return found

    def _copy(self, url: str, version: str, size_of: Callable[[], int]) -> BinaryIO:
        copy = self.cache.open(version, size_of, lambda copy: self._download(url, copy))
        return self.files.open(url) if copy is None else copy

    def _download(self, url: str, copy: BinaryIO) -> None:
        with self.files.open(url) as original:
            shutil.copyfileobj(original, copy, _BLOCK_BYTES)

    def _objects_of(self, reference: str) -> Iterator[dict[str, Any]]:
        return (item for item in self._objects(reference) if self._belongs(item["Key"], reference))

    def _belongs(self, key: str, reference: str) -> bool:
        """Whether a key is that of a file, or lies in the folder of that name."""
        own = self.location.key(reference)
        return key == own or key.startswith(f"{own}/")

    def _objects(self, prefix: str) -> Iterator[dict[str, Any]]:
        for page in pages(self._call, self.location.key(prefix)):
            yield from page.get("Contents", ())

    def _uploads(self, prefix: str) -> Iterator[dict[str, Any]]:
        """Uploads that were begun and not completed."""
        following: dict[str, str] = {}
        while True:
            page = self._call("list_multipart_uploads", Prefix=self.location.key(prefix), **following)
            yield from page.get("Uploads", ())
            if not page.get("IsTruncated"):
                return
            following = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def _abort(self, uploads: Iterable[dict[str, Any]]) -> None:
        for upload in list(uploads):
            with contextlib.suppress(UploadAborted):  # its writer completed it in this moment
                self._call("abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])

    def _delete_keys(self, keys: list[str]) -> None:
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            objects = [{"Key": key} for key in keys[start : start + _KEYS_AT_ONCE]]
            answer = self._call("delete_objects", Delete={"Objects": objects, "Quiet": True})
            if refused := answer.get("Errors"):
                code = refused[0].get("Code", "")
                raise StorageRefused(
                    f"{self.location}: {len(refused)} objects cannot be deleted with this key ({code})"
                )

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        with translated_errors(str(self.location)):
            answer: dict[str, Any] = self.files.s3().call_s3(method, Bucket=self.location.bucket, **arguments)
        return answer


class _NewS3Folder(NewFolder):
    def __init__(self, storage: S3Storage, reference: str) -> None:
        self._storage = storage
        self._reference = reference

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        with self._storage.writing(self.reference(name)) as stream:
            yield stream

    def file(self, name: str) -> RemoteFile:
        return RemoteFile(self._storage.files, self._storage.url(self.reference(name)))

    def reference(self, name: str) -> str:
        return f"{self._reference}/{name}"


def _sha256_of(stream: BinaryIO) -> str:
    content = hashlib.sha256()
    while block := stream.read(_BLOCK_BYTES):
        content.update(block)
    stream.seek(0)
    return content.hexdigest()
