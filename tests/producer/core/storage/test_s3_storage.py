"""What is S3's own: refusals, uploads that a kill cuts short, and local copies."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import BinaryIO

import pytest
from s3_server import BUCKET, KEY, READER, SECRET, S3Server

from labelmill.contracts.errors import (
    InvalidInput,
    LabelmillError,
    Permanent,
    StorageRefused,
    StorageUnavailable,
)
from labelmill.core.addresses.s3 import S3Location
from labelmill.core.redaction import secret_remover
from labelmill.core.settings import load_settings
from labelmill.core.storage.base import Measured
from labelmill.core.storage.cache import FileCache
from labelmill.core.storage.opening import open_storage
from labelmill.core.storage.references import MODELS
from labelmill.core.storage.remote import RemoteFiles, S3Options
from labelmill.core.storage.s3 import S3Storage
from labelmill.doctor.checks import Status
from labelmill.doctor.disk import check_storage

MODEL = "models/train_1.zip"


def storage_of(
    options: S3Options, folder: Path, bucket: str = BUCKET, prefix: str = "ours", cache_bytes: int = 1 << 20
) -> S3Storage:
    return S3Storage(S3Location(bucket, prefix), RemoteFiles(options), FileCache(folder / "cache", cache_bytes))


@pytest.fixture
def storage(s3_server: S3Server, tmp_path: Path) -> S3Storage:
    return storage_of(s3_server.options(), tmp_path)


def read(storage: S3Storage, reference: str, sha256: str | None = None) -> bytes:
    with storage.file(reference, MODELS, sha256=sha256).open("rb") as file:
        return file.read()


def put(storage: S3Storage, reference: str, content: bytes) -> str:
    with storage.writing(reference) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("key", "bucket", "kind", "words"),
    [
        ("UNKNOWNKEYOFTESTS", BUCKET, StorageRefused, "s3://bucket refuses the key in AWS_ACCESS_KEY_ID"),
        (READER, BUCKET, StorageRefused, "may not be read or written with this key"),
        (KEY, "nobodys", StorageRefused, "there is no bucket s3://nobodys"),
    ],
)
def test_a_refusal_is_one_sentence_without_a_secret(
    s3_server: S3Server, tmp_path: Path, key: str, bucket: str, kind: type[LabelmillError], words: str
) -> None:
    storage = storage_of(s3_server.options(key), tmp_path, bucket)
    acts: list[Callable[[], object]] = [storage.check, lambda: put(storage, MODEL, b"x")]
    if key != READER:
        acts += [lambda: list(storage.entries(MODELS)), lambda: storage.delete(MODEL)]
    for act in acts:
        with pytest.raises(kind, match=words) as refused:
            act()
        assert refused.value.exit_code == 2
        assert key not in refused.value.message
        assert SECRET not in refused.value.message


def test_a_server_that_does_not_answer_may_answer_later(tmp_path: Path) -> None:
    storage = storage_of(S3Options(KEY, SECRET, endpoint_url="http://127.0.0.1:1", region="us-east-1"), tmp_path)
    with pytest.raises(
        StorageUnavailable, match=r"s3://bucket cannot be reached .*: look at its server, at AWS_ENDPOINT_URL"
    ):
        storage.check()


def test_doctor_tells_what_is_wrong_with_the_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    assert check_storage(load_settings(data_dir=f"s3://{BUCKET}/ours")).status is Status.OK
    assert s3_server.keys() == []
    failed = check_storage(load_settings(data_dir="s3://nobodys/ours"))
    assert (failed.status, failed.summary[:40]) == (Status.FAILED, "there is no bucket s3://nobodys: make it")


def test_keys_are_neither_shown_nor_logged(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token of the tests")
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    settings = load_settings(data_dir=f"s3://{BUCKET}")
    redact = secret_remover(settings)
    for secret in (KEY, SECRET, "token of the tests"):
        assert secret not in repr(settings)
        assert secret not in redact(f"it said {secret!r} and {secret}")
    assert SECRET not in repr(S3Options(KEY, SECRET))


def test_without_the_extra_a_bucket_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "s3fs" else found(name))
    with pytest.raises(StorageRefused, match=r's3:// needs s3fs: pip install "labelmill\[s3\]"'):
        open_storage(load_settings(data_dir="s3://bucket/x"))


def test_files_in_s3_need_a_database_of_their_own() -> None:
    settings = load_settings(data_dir="s3://bucket/x")
    with pytest.raises(InvalidInput, match="setting LABELMILL_DATABASE_URL: name a database"):
        _ = settings.sql_url
    assert load_settings(data_dir="s3://bucket/x", database_url="sqlite:///a.db").sql_url == "sqlite:///a.db"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("gs://bucket/x", "it is a folder or s3://bucket/prefix"),
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("s3://key:secret@bucket/x", "names no bucket"),
        ("s3://bucket/a/../b", "has a prefix that is not plain names"),
        ("s3://bucket/a//b", "has a prefix that is not plain names"),
        ("s3://bucket/a::b", "has a prefix that is not plain names"),
        ("s3://bucket/a?versionId=1", "has a prefix that is not plain names"),
    ],
)
def test_a_data_folder_that_is_no_place_in_s3_is_refused(url: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=f"setting LABELMILL_DATA_DIR: .*{words}") as refused:
        load_settings(data_dir=url)
    assert "secret" not in refused.value.message


@pytest.mark.parametrize(
    "url", ["s3.example.com", "ftp://a", "http://", "https://user:secret@s3.example.com", "http://[x"]
)
def test_an_endpoint_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(InvalidInput, match="setting AWS_ENDPOINT_URL: it is not the address of a server") as refused:
        load_settings()
    assert "secret" not in refused.value.message


_UPLOAD = """
import os, sys
from labelmill.core.settings import load_settings
from labelmill.core.storage.opening import open_storage
with open_storage(load_settings()).writing("models/train_1.zip") as file:
    for _ in range(40):
        file.write(os.urandom(1 << 20))
"""


def test_a_kill_in_the_middle_of_an_upload_leaves_nothing_that_is_read(
    s3_server: S3Server, storage: S3Storage, tmp_path: Path
) -> None:
    s3_server.holds = lambda line: "partNumber=2" in line
    environment = os.environ | s3_server.environment() | {"LABELMILL_DATA_DIR": f"s3://{BUCKET}/ours"}
    writer = subprocess.Popen([sys.executable, "-c", _UPLOAD], env=environment, cwd=tmp_path)
    assert s3_server.is_holding.wait(60)
    writer.kill()
    writer.wait(10)
    s3_server.release.set()
    assert not storage.file(MODEL, MODELS).exists()
    assert storage.measure(MODEL) == Measured()
    with pytest.raises(FileNotFoundError):
        read(storage, MODEL)
    assert [entry.reference for entry in storage.entries(MODELS)] == [MODEL]  # `purge` finds it
    assert len(s3_server.uploads()) == 1
    storage.delete_leftovers("models/train_10")
    assert len(s3_server.uploads()) == 1
    storage.delete_leftovers("models/train_1")
    assert s3_server.uploads() == []


def test_a_bucket_needs_no_prefix(s3_server: S3Server, tmp_path: Path) -> None:
    storage = storage_of(s3_server.options(), tmp_path, prefix="")
    put(storage, MODEL, b"x")
    assert s3_server.keys() == [MODEL]
    assert [entry.reference for entry in storage.entries(MODELS)] == [MODEL]
    assert storage.shown(MODEL) == f"s3://{BUCKET}/{MODEL}"
    assert storage.delete(MODEL) == Measured(1, 1)


def test_a_late_attempt_at_a_dataset_overwrites_nothing_that_was_recorded(storage: S3Storage, tmp_path: Path) -> None:
    stored = []
    for content in ("recorded", "late"):
        made = tmp_path / content
        made.mkdir()
        (made / "train.jsonl").write_text(content)
        stored.append(storage.put_folder(made, "datasets/prep_1")["train.jsonl"])
    with storage.file(stored[0], "datasets/prep_1").open("rb") as file:
        assert file.read() == b"recorded"


def test_a_model_is_downloaded_once(s3_server: S3Server, storage: S3Storage) -> None:
    digest = put(storage, MODEL, b"model")
    assert read(storage, MODEL, digest) == b"model"
    s3_server.requests.clear()
    assert read(storage, MODEL, digest) == b"model"
    assert s3_server.requests == []


def test_a_model_with_another_digest_is_never_kept(s3_server: S3Server, storage: S3Storage) -> None:
    digest = put(storage, MODEL, b"model")
    s3_server.put(f"ours/{MODEL}", b"other")
    assert read(storage, MODEL, digest) == b"other"  # what reads it refuses it
    s3_server.put(f"ours/{MODEL}", b"model")
    assert read(storage, MODEL, digest) == b"model"


def test_a_local_copy_that_was_damaged_is_downloaded_again(storage: S3Storage) -> None:
    digest = put(storage, MODEL, b"model")
    read(storage, MODEL, digest)
    (copy,) = storage.cache.folder.iterdir()
    copy.write_bytes(b"mod")
    assert read(storage, MODEL, digest) == b"model"


def test_local_copies_are_bounded_and_the_oldest_use_goes_first(s3_server: S3Server, tmp_path: Path) -> None:
    storage = storage_of(s3_server.options(), tmp_path, cache_bytes=100)
    digests = {name: put(storage, name, name.encode() * 3) for name in ("models/a.zip", "models/b.zip", "models/c.zip")}
    known: set[Path] = set()
    for age_s, (name, digest) in zip((300, 200, 100), digests.items(), strict=True):  # 36 bytes each: two fit
        read(storage, name, digest)
        for copy in set(storage.cache.folder.iterdir()) - known:
            os.utime(copy, (time.time() - age_s,) * 2)
        known = set(storage.cache.folder.iterdir())
    assert sum(copy.stat().st_size for copy in storage.cache.folder.iterdir()) == 72
    s3_server.requests.clear()
    for name in ("models/b.zip", "models/c.zip"):
        read(storage, name, digests[name])
    assert s3_server.requests == []
    large = put(storage, "models/large.zip", b"x" * 101)
    assert read(storage, "models/large.zip", large) == b"x" * 101
    assert sum(copy.stat().st_size for copy in storage.cache.folder.iterdir()) == 72


def test_a_file_is_read_from_s3_where_the_disk_of_the_copies_is_full(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = put(storage, MODEL, b"model")

    def fill_up(url: str, copy: BinaryIO) -> None:
        copy.write(b"mod")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage, "_download", fill_up)
    assert read(storage, MODEL, digest) == b"model"
    assert list(storage.cache.folder.iterdir()) == []


def test_a_copy_that_is_deleted_while_it_is_read_is_read_to_its_end(storage: S3Storage) -> None:
    digest = put(storage, MODEL, b"model")
    with storage.file(MODEL, MODELS, sha256=digest).open("rb") as file:
        for copy in storage.cache.folder.iterdir():
            copy.unlink()
        assert file.read() == b"model"


def test_a_cache_that_others_can_write_to_is_refused(storage: S3Storage) -> None:
    digest = put(storage, MODEL, b"model")
    storage.cache.folder.mkdir(exist_ok=True)
    storage.cache.folder.chmod(0o777)
    with pytest.raises(StorageRefused, match="is not a folder that this user alone can write to"):
        read(storage, MODEL, digest)


def test_an_object_that_is_replaced_while_it_is_read_is_not_read_as_one(
    s3_server: S3Server, storage: S3Storage
) -> None:
    s3_server.put("ours/sources/prep_1/a", b"a" * (20 << 20))
    with storage.file("sources/prep_1/a", "sources/prep_1", read_once=True).open("rb") as file:
        file.read(10)
        s3_server.put("ours/sources/prep_1/a", b"b" * (20 << 20))
        with pytest.raises(StorageUnavailable, match="was changed while it was read"):
            file.read()


def test_a_disk_that_is_full_concerns_this_worker_alone(storage: S3Storage) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def work(error: Exception, cause: Exception | None) -> None:
        with storage.workspace(MODEL):
            raise error from cause

    for error, cause in ((full, None), (Permanent("it cannot be written"), full)):
        with pytest.raises(StorageRefused, match=r"the disk of .*cache is full: make room"):
            work(error, cause)
    with pytest.raises(Permanent, match="bad rows"):
        work(Permanent("bad rows"), None)
    assert list(storage.cache.folder.iterdir()) == []


def test_workspaces_of_dead_processes_are_deleted(storage: S3Storage) -> None:
    code = (
        "import os, pathlib, sys\nfrom labelmill.core.storage.cache import FileCache\n"
        "with FileCache(pathlib.Path(sys.argv[1]), 1).workspace() as work:\n"
        "    (work / 'left').touch()\n    os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(storage.cache.folder)], check=True)
    assert len(list(storage.cache.folder.glob("work-*/left"))) == 1
    with storage.workspace(MODEL) as first, storage.workspace(MODEL) as second:
        assert first.is_dir()
        assert second.is_dir()
        assert not list(storage.cache.folder.glob("work-*/left"))
    assert list(storage.cache.folder.iterdir()) == []


def test_copies_that_nobody_reads_do_not_stay(storage: S3Storage) -> None:
    digests = {name: put(storage, name, name.encode()) for name in ("models/a.zip", "models/b.zip", "models/c.zip")}
    for name in ("models/a.zip", "models/b.zip"):
        read(storage, name, digests[name])
    old, _ = storage.cache.folder.iterdir()
    os.utime(old, (time.time() - 90_000,) * 2)
    read(storage, "models/c.zip", digests["models/c.zip"])
    assert not old.exists()
    assert len(list(storage.cache.folder.iterdir())) == 2


def test_a_time_of_use_is_kept_with_the_copy(storage: S3Storage) -> None:
    digest = put(storage, MODEL, b"model")
    read(storage, MODEL, digest)
    (copy,) = storage.cache.folder.iterdir()
    os.utime(copy, (0, 0))
    read(storage, MODEL, digest)
    assert time.time() - copy.stat().st_mtime < 60
