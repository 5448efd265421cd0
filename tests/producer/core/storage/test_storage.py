"""References to files of the data folder: what they lead to, and what is never opened."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from labelmill.contracts.errors import InvalidInput
from labelmill.core.readers.rows import as_source
from labelmill.core.storage.data_folder import DataFolder, dataset_folder, local_source, shown_files
from labelmill.services.submissions.source_copies import copy_into_data_folder

OWN = dataset_folder("prep_1")


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    made = DataFolder.of(str(tmp_path / "data"))
    for folder in (OWN, dataset_folder("prep_10"), dataset_folder("prep_2"), "models"):
        made.path(folder).mkdir(parents=True)
        (made.path(folder) / "train.jsonl").write_text("{}\n")
    (tmp_path / "secret").write_text("key")
    return made


def test_a_reference_leads_to_a_file_wherever_the_folder_is_mounted(data: DataFolder, tmp_path: Path) -> None:
    reference = data.reference(data.path(OWN) / "train.jsonl")
    assert reference == "datasets/prep_1/train.jsonl"
    data.root.rename(tmp_path / "elsewhere")
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere")
    for root in ("elsewhere", "linked"):
        assert DataFolder.of(str(tmp_path / root)).file(reference, OWN).read_text() == "{}\n"


def test_a_file_that_is_missing_is_named_all_the_same(data: DataFolder) -> None:
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
def test_what_lies_elsewhere_is_refused_in_one_sentence(data: DataFolder, tmp_path: Path, reference: object) -> None:
    own = data.path(OWN)
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
def test_an_id_that_is_a_path_opens_nothing_else(data: DataFolder, folder: str) -> None:
    with pytest.raises(InvalidInput, match="not a file inside"):
        data.file("../secret", folder)


def test_a_folder_that_is_itself_a_link_is_not_followed(data: DataFolder, tmp_path: Path) -> None:
    data.path(OWN).rename(tmp_path / "moved")
    data.path(OWN).symlink_to(tmp_path / "moved")
    with pytest.raises(InvalidInput, match="not a file inside"):
        data.file("datasets/prep_1/train.jsonl", OWN)


def test_users_are_shown_where_files_lie_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"train": "datasets/prep_1/train.jsonl"}
    assert shown_files("data", files) == {"train": f"{tmp_path}/data/datasets/prep_1/train.jsonl"}
    assert shown_files("s3://bucket/a/", files) == {"train": "s3://bucket/a/datasets/prep_1/train.jsonl"}


def test_the_source_of_a_batch_is_a_split_or_what_its_user_wrote(data: DataFolder) -> None:
    path = data.file("datasets/prep_1/train.jsonl", OWN)
    assert local_source(str(data.root), data.source(path)) == str(path)
    assert local_source(str(data.root), "datasets/prep_1/train.jsonl") == "datasets/prep_1/train.jsonl"
    with pytest.raises(InvalidInput, match="not a file inside"):
        local_source(str(data.root), "data-folder:../secret")


def test_a_url_is_no_folder() -> None:
    with pytest.raises(InvalidInput, match="not a URL"):
        DataFolder.of("s3://bucket/prefix")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_root_copies_into_the_folder_of_another_user_belongs_to_that_user(tmp_path: Path) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text('{"text": "a", "intent": "b"}\n')
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    os.chown(data_dir, 1000, 1001)
    (reference,) = copy_into_data_folder([as_source(source, ["text"])], str(data_dir), "prep_0", lambda _: None)
    copy = DataFolder.of(str(data_dir)).file(reference, "sources/prep_0")
    for path in (copy, copy.parent, copy.parent.parent):
        assert (path.stat().st_uid, path.stat().st_gid) == (1000, 1001)
