"""Files that appear whole or not at all, and folders that nobody else enters."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelmill.core.database import connect, upgrade, writing
from labelmill.core.settings import load_settings
from labelmill.core.storage import new_files
from labelmill.core.storage.new_files import is_same_file, make_private_folder, replacing
from labelmill.doctor.disk import check_storage


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o277])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_the_data_folder_and_its_database_are_for_their_owner_alone(tmp_path: Path) -> None:
    settings = load_settings(data_dir=str(tmp_path / "data"))
    engine = connect(settings.sql_url)
    upgrade(engine)
    with writing(engine):
        assert mode_of(tmp_path / "data") == 0o700
        found = {file.name: mode_of(file) for file in (tmp_path / "data").iterdir()}
    engine.dispose()
    assert found == dict.fromkeys(("labelmill.db", "labelmill.db-wal", "labelmill.db-shm"), 0o600)


def test_a_folder_and_a_database_that_are_there_keep_their_modes(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o2770)
    sqlite3.connect(folder / "labelmill.db").close()
    (folder / "labelmill.db").chmod(0o660)
    make_private_folder(folder)
    engine = connect(load_settings(data_dir=str(folder)).sql_url)
    upgrade(engine)
    with writing(engine):
        assert {mode_of(file) for file in folder.iterdir()} == {0o660}
    engine.dispose()
    assert mode_of(folder) == 0o2770


def test_doctor_warns_once_of_a_data_folder_that_others_may_enter(tmp_path: Path) -> None:
    folder = tmp_path / "data of mine"
    assert check_storage(load_settings(data_dir=str(folder))).status == "ok"
    make_private_folder(folder)
    assert check_storage(load_settings(data_dir=str(folder))).status == "ok"
    folder.chmod(0o755)
    look = check_storage(load_settings(data_dir=str(folder)))
    assert (look.status, "755" in look.summary) == ("warning", True)
    assert f"chmod 700 '{folder}'" in look.remedy


def test_a_link_where_the_unfinished_file_will_be_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, output = tmp_path / "victim", tmp_path / "out.jsonl"
    victim.write_text("precious")
    monkeypatch.setattr(new_files.secrets, "token_hex", lambda _: "guessed")
    (tmp_path / ".out.jsonl.guessed.part").symlink_to(victim)
    with pytest.raises(FileExistsError), replacing(output):
        pytest.fail("it was opened")
    assert victim.read_text() == "precious"
    assert not output.exists()


def test_a_link_of_the_outputs_name_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, output = tmp_path / "victim", tmp_path / "out.jsonl"
    victim.write_text("precious")
    output.symlink_to(victim)
    with replacing(output) as stream:
        stream.write(b"rows")
    assert (output.is_symlink(), output.read_text(), victim.read_text()) == (False, "rows", "precious")


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path: Path) -> None:
    output = tmp_path / ("x" * 250)
    output.write_text("before")

    def fail_halfway() -> None:
        with replacing(output) as stream:
            stream.write(b"half")
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        fail_halfway()
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == [output.name]
    assert output.read_text() == "before"


def test_a_pipe_or_a_device_is_written_to_as_it_is(tmp_path: Path) -> None:
    with replacing(Path("/dev/null")) as stream:
        stream.write(b"x")
    assert Path("/dev/null").is_char_device()
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with replacing(tmp_path / "pipe") as stream:
        stream.write(b"rows")
    assert os.read(reader, 100) == b"rows"
    os.close(reader)
    before = Path("/dev/stdout").readlink()
    with replacing(Path("/dev/stdout")) as stream:
        stream.write(b"\n")
    assert Path("/dev/stdout").readlink() == before


def test_one_file_is_known_by_every_way_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, other = tmp_path / "rows.jsonl", tmp_path / "other.jsonl"
    file.write_text("{}")
    other.write_text("{}")
    (tmp_path / "soft").symlink_to(file)
    (tmp_path / "hard").hardlink_to(file)
    (tmp_path / "folder").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for path in ("rows.jsonl", "./rows.jsonl", "soft", "hard", "folder/rows.jsonl", f"../{tmp_path.name}/rows.jsonl"):
        assert is_same_file(Path(path), file), path
    assert not is_same_file(other, file)
    assert not is_same_file(tmp_path / "nothing", file)
    with file.open("rb") as stream:
        assert is_same_file(Path("soft"), stream)
        assert not is_same_file(other, stream)
    assert not is_same_file(file, sys.stdin.buffer)
