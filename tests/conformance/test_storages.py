"""What every storage does, in a folder and in S3 alike."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from s3_server import BUCKET, S3Server
from sqlalchemy import insert
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import InvalidInput
from labelmill.core.addresses.s3 import S3Location
from labelmill.core.database import connect, writing
from labelmill.core.database.tables import DatasetRow, utc_now
from labelmill.core.queue.sender import MessageSender
from labelmill.core.readers.rows import as_source
from labelmill.core.storage.base import Measured, Storage
from labelmill.core.storage.cache import FileCache
from labelmill.core.storage.local import LocalStorage
from labelmill.core.storage.references import dataset_folder
from labelmill.core.storage.remote import RemoteFiles
from labelmill.core.storage.s3 import S3Storage
from labelmill.services.context import ServiceContext
from labelmill.services.purging.files import left_behind
from labelmill.services.purging.purge import PurgeRequest, purge
from labelmill.services.submissions.source_copies import copy_into_storage

OWN = dataset_folder("prep_1")


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        made = LocalStorage(tmp_path / "data")
        made.prepare()
        return made
    server: S3Server = request.getfixturevalue("s3_server")
    return S3Storage(
        S3Location(BUCKET, "team/of ours"), RemoteFiles(server.options()), FileCache(tmp_path / "cache", 1 << 20)
    )


@pytest.fixture
def sqlite_engine(sqlite_template: Path, tmp_path: Path) -> Iterator[Engine]:
    shutil.copy(sqlite_template, tmp_path / "jobs.db")
    made = connect(f"sqlite:///{tmp_path / 'jobs.db'}")
    yield made
    made.dispose()


def put(storage: Storage, reference: str, content: bytes = b"x") -> None:
    with storage.writing(reference) as file:
        file.write(content)


def get(storage: Storage, reference: str, folder: str = OWN, *, read_once: bool = False) -> bytes:
    with storage.file(reference, folder, read_once=read_once).open("rb") as file:
        return file.read()


def test_a_file_is_read_as_it_was_written_in_parts_or_at_once(storage: Storage) -> None:
    for size in (0, 1, 18 << 20):
        content = os.urandom(size)
        put(storage, f"{OWN}/{size}", content)
        assert storage.measure(f"{OWN}/{size}") == Measured(1, size)
        for read_once in (False, True):
            assert get(storage, f"{OWN}/{size}", read_once=read_once) == content
        with storage.file(f"{OWN}/{size}", OWN).on_disk() as path:
            assert path.read_bytes() == content


def test_a_file_that_is_replaced_is_read_anew(storage: Storage) -> None:
    for content in (b"one", b"two"):
        put(storage, f"{OWN}/a", content)
        assert get(storage, f"{OWN}/a") == content


def test_a_missing_file_is_missing(storage: Storage) -> None:
    file = storage.file(f"{OWN}/gone", OWN)
    assert not file.exists()
    for read_once in (False, True):
        with pytest.raises(FileNotFoundError):
            storage.file(f"{OWN}/gone", OWN, read_once=read_once).open("rb")
    with pytest.raises(FileNotFoundError):
        storage.file(f"{OWN}/gone", OWN, sha256="0" * 64).open("rb")


@pytest.mark.parametrize(
    "reference",
    [
        "/proc/self/environ",
        "../secret",
        "datasets/prep_1/../../secret",
        "datasets/prep_1/../prep_2/x",
        "datasets/prep_1",
        "datasets/prep_1/",
        "datasets/prep_10/train.jsonl",
        "models/train.jsonl",
        "s3://other/datasets/prep_1/x",
        "",
        "datasets/prep_1/a\0b",
        "datasets/prep_1/" + "x" * 5000,
        None,
        7,
    ],
)
def test_what_lies_elsewhere_is_not_opened(storage: Storage, reference: object) -> None:
    with pytest.raises(InvalidInput, match="is not a file inside the data folder's datasets/prep_1/"):
        storage.file(reference, OWN)  # type: ignore[arg-type]


def test_a_write_that_fails_leaves_nothing_that_can_be_read(storage: Storage) -> None:
    put(storage, f"{OWN}/kept", b"before")

    def write_some(name: str) -> None:
        with storage.writing(f"{OWN}/{name}") as file:
            file.write(os.urandom(17 << 20))  # a part of it was sent
            raise ZeroDivisionError

    for name in ("new", "kept"):
        with pytest.raises(ZeroDivisionError):
            write_some(name)
    assert not storage.file(f"{OWN}/new", OWN).exists()
    assert get(storage, f"{OWN}/kept") == b"before"
    assert storage.measure(OWN) == Measured(1, 6)


def test_a_new_folder_has_all_of_its_files_or_none(storage: Storage) -> None:
    with storage.new_folder("sources/prep_1") as folder:
        for name in ("a b", "c"):
            with folder.writing(name) as file:
                file.write(name.encode())
            with folder.file(name).open("rb") as written:
                assert written.read() == name.encode()
    assert [get(storage, folder.reference(name), "sources/prep_1") for name in ("a b", "c")] == [b"a b", b"c"]

    def write_one_of_two() -> None:
        with storage.new_folder("sources/prep_2") as folder:
            with folder.writing("a") as file:
                file.write(b"a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_one_of_two()
    assert storage.measure("sources/prep_2") == Measured()
    assert [entry.reference for entry in storage.entries("sources")] == ["sources/prep_1"]


def test_the_files_of_a_workspace_are_moved_together_and_replace_those_of_an_earlier_attempt(storage: Storage) -> None:
    for content in ("first", "second, longer"):
        with storage.workspace(OWN) as work:
            made = work / "dataset"
            made.mkdir()
            (made / "train.jsonl").write_text(content)
            stored = storage.put_folder(made, OWN)
        assert not work.exists()
    storage.keep_only(OWN, set(stored.values()))
    assert list(stored) == ["train.jsonl"]
    assert get(storage, stored["train.jsonl"]) == b"second, longer"
    assert storage.measure(OWN) == Measured(1, 14)


def test_an_attempt_whose_workspace_is_gone_replaces_nothing(storage: Storage) -> None:
    with storage.workspace(OWN) as work:
        made = work / "dataset"
        made.mkdir()
        (made / "train.jsonl").write_text("whole")
        stored = storage.put_folder(made, OWN)
        with pytest.raises(FileNotFoundError):
            storage.put_folder(made / "gone", OWN)
    assert get(storage, stored["train.jsonl"]) == b"whole"


def test_only_the_named_file_or_folder_is_measured_and_deleted(storage: Storage) -> None:
    for name in ("prep_1/a", "prep_1/b/c", "prep_10/a", "prep_1.part/a"):
        put(storage, f"datasets/{name}")
    assert storage.measure(OWN) == Measured(2, 2)
    assert storage.delete(OWN) == Measured(2, 2)
    assert storage.delete(OWN) == Measured()
    left = [entry.reference for entry in storage.entries("datasets")]
    assert left == ["datasets/prep_1.part", "datasets/prep_10"]


def test_entries_know_when_they_were_written(storage: Storage) -> None:
    put(storage, "models/train_1.zip")
    (entry,) = storage.entries("models")
    assert entry.reference == "models/train_1.zip"
    assert abs(entry.modified_at - time.time()) < 120
    assert not list(storage.entries("datasets"))


def test_files_of_jobs_that_are_in_no_table_are_found_once_they_are_old(
    sqlite_engine: Engine, storage: Storage
) -> None:
    for name in ("models/train_0000000001.zip", "models/somebody.zip", "datasets/prep_0000000001/x/train.jsonl"):
        put(storage, name)
    now = datetime.now(UTC)
    assert not list(left_behind(sqlite_engine, storage, now - timedelta(hours=1)))
    later = now + timedelta(hours=1)
    found = set(left_behind(sqlite_engine, storage, later))
    assert found == {"models/train_0000000001.zip", "datasets/prep_0000000001"}


def test_sources_are_copied_all_or_none(storage: Storage, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"text": "{name}"}}\n')
    sources = [as_source(tmp_path / f"{name}.jsonl", ["text"]) for name in ("a", "b")]
    copies = copy_into_storage(sources, storage, "prep_1", lambda _: None)
    assert copies.references == ("sources/prep_1/a.jsonl", "sources/prep_1/b.jsonl")
    assert get(storage, copies.references[1], "sources/prep_1", read_once=True) == b'{"text": "b"}\n'
    again = copy_into_storage(sources[::-1], storage, "prep_2", lambda _: None)
    assert again.digest != copies.digest


def test_a_source_of_any_name_is_copied(storage: Storage, tmp_path: Path) -> None:
    of_urls = [b"a?versionId=1.jsonl", b"a?versionId=2.jsonl", b"zip::x#.jsonl"]
    names = [*of_urls, b"a\nb.jsonl", b"\xff.jsonl", "ü 'quoted' & <x>.jsonl".encode(), b"x" * 240 + b".jsonl"]
    paths = [tmp_path / os.fsdecode(name) for name in names]
    for path in paths:
        path.write_text('{"text": "a"}\n')
    copies = copy_into_storage([as_source(path, ["text"]) for path in paths], storage, "prep_1", lambda _: None)
    for reference in copies.references:
        assert reference.endswith(".jsonl")
        assert get(storage, reference, "sources/prep_1") == b'{"text": "a"}\n'


def test_a_storage_can_be_checked_and_nothing_is_left_of_it(storage: Storage) -> None:
    storage.check()
    assert not [one for folder in ("datasets", "models", "sources", "doctor") for one in storage.entries(folder)]


def test_purge_deletes_the_files_of_old_jobs_and_says_how_many(sqlite_engine: Engine, storage: Storage) -> None:
    old, young = "prep_00000000aa", "prep_00000000bb"
    for job_id, days in ((old, 200), (young, 1)):
        put(storage, f"{dataset_folder(job_id)}/x/train.jsonl", b"12345")
        put(storage, f"sources/{job_id}/rows.csv", b"123")
        with writing(sqlite_engine) as connection:
            values = {"state": "failed", "name": job_id, "spec": {}, "finished_at": utc_now() - timedelta(days=days)}
            connection.execute(insert(DatasetRow).values(id=job_id, **values))
    context = ServiceContext(sqlite_engine, cast("MessageSender", None), storage)
    would = purge(context, PurgeRequest("90d", dry_run=True))
    assert storage.measure("sources") == Measured(2, 6)
    done = purge(context, PurgeRequest("90d"))
    assert (would.files, would.bytes) == (done.files, done.bytes) == (2, 8)
    left = [entry.reference for folder in ("datasets", "sources") for entry in storage.entries(folder)]
    assert left == [dataset_folder(young), f"sources/{young}"]
