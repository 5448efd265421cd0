"""References to files of a shared folder: what they lead to, and what is never opened."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from labelmill.contracts.errors import InvalidInput
from labelmill.core.readers.rows import as_source
from labelmill.core.storage.local import LocalStorage
from labelmill.core.storage.references import batch_source, dataset_folder, reference_in
from labelmill.services.submissions.source_copies import copy_into_storage

OWN = dataset_folder("prep_1")


@pytest.fixture
def data(tmp_path: Path) -> LocalStorage:
    made = LocalStorage(tmp_path / "data")
    for folder in (OWN, dataset_folder("prep_10"), dataset_folder("prep_2"), "models"):
        (made.root / folder).mkdir(parents=True)
        (made.root / folder / "train.jsonl").write_text("{}\n")
    (tmp_path / "secret").write_text("key")
    return made


def test_a_reference_leads_to_a_file_wherever_the_folder_is_mounted(data: LocalStorage, tmp_path: Path) -> None:
    reference = f"{OWN}/train.jsonl"
    data.root.rename(tmp_path / "elsewhere")
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere")
    for root in ("elsewhere", "linked"):
        assert LocalStorage(tmp_path / root).file(reference, OWN).path.read_text() == "{}\n"


def test_a_file_that_is_missing_is_named_all_the_same(data: LocalStorage) -> None:
    assert not data.file("datasets/prep_1/gone.jsonl", OWN).exists()


@pytest.mark.parametrize(
    "reference",
    [
        "/proc/self/environ",
        "ROOT/../secret",
        "../secret",
        "datasets/prep_1/../../../secret",
        "datasets/prep_1",
        "datasets/prep_1/",
        "datasets/prep_1/.",
        "",
        ".",
        "datasets/prep_2/train.jsonl",
        "datasets/prep_10/train.jsonl",
        "models/train.jsonl",
        "datasets/prep_1/link",
        "datasets/prep_1/folder/secret",
        "datasets/prep_1/loop",
        "datasets/prep_1/loop/train.jsonl",
        "datasets/prep_1/environ",
        "datasets/prep_1/pipe",
        "datasets/prep_1/socket",
        "datasets/prep_1/a\0b",
        "file:///proc/self/environ",
        "http://127.0.0.1:1/x",
        "datasets/prep_1/" + "x" * 5000,
        None,
        7,
        ["a"],
    ],
)
def test_what_lies_elsewhere_is_refused_in_one_sentence(data: LocalStorage, tmp_path: Path, reference: object) -> None:
    own = data.root / OWN
    (own / "link").symlink_to(tmp_path / "secret")
    (own / "folder").symlink_to(tmp_path)
    (own / "loop").symlink_to(own / "loop")
    (own / "environ").symlink_to("/proc/self/environ")
    os.mkfifo(own / "pipe")
    if isinstance(reference, str):
        reference = reference.replace("ROOT", str(data.root))
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(own)
        listener.bind("socket")
        with pytest.raises(InvalidInput, match="is not a file inside the data folder's datasets/prep_1/") as refused:
            data.file(reference, OWN)  # type: ignore[arg-type]
    assert len(refused.value.message) < 400


@pytest.mark.parametrize("folder", ["datasets/..", "datasets/../..", "datasets/prep_1/../../.."])
def test_an_id_that_is_a_path_opens_nothing_else(data: LocalStorage, folder: str) -> None:
    with pytest.raises(InvalidInput, match="not a file inside"):
        data.file("../secret", folder)


def test_a_folder_that_is_itself_a_link_is_not_followed(data: LocalStorage, tmp_path: Path) -> None:
    (data.root / OWN).rename(tmp_path / "moved")
    (data.root / OWN).symlink_to(tmp_path / "moved")
    with pytest.raises(InvalidInput, match="not a file inside"):
        data.file("datasets/prep_1/train.jsonl", OWN)


def test_users_are_shown_where_files_lie_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = LocalStorage(Path("data")).shown("datasets/prep_1/train.jsonl")
    assert shown == f"{tmp_path}/data/datasets/prep_1/train.jsonl"


def test_the_source_of_a_batch_is_a_split_or_what_its_user_wrote() -> None:
    assert reference_in(batch_source("datasets/prep_1/train.jsonl")) == "datasets/prep_1/train.jsonl"
    assert reference_in("datasets/prep_1/train.jsonl") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_root_copies_into_the_folder_of_another_user_belongs_to_that_user(tmp_path: Path) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text('{"text": "a", "intent": "b"}\n')
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    os.chown(data_dir, 1000, 1001)
    storage = LocalStorage(data_dir)
    (reference,) = copy_into_storage([as_source(source, ["text"])], storage, "prep_0", lambda _: None).references
    copy = storage.file(reference, "sources/prep_0").path
    for path in (copy, copy.parent, copy.parent.parent):
        assert (path.stat().st_uid, path.stat().st_gid) == (1000, 1001)
