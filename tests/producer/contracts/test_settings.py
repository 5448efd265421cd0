"""Where a setting comes from: flag, environment, `.env`, a running `labelmill up`, default, in this order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

from labelmill.contracts.database import connect, upgrade
from labelmill.contracts.database.sqlite import database_file
from labelmill.contracts.settings import load_settings

BROKERS = {name: f"redis://{name}:6379/0" for name in ("flag", "environment", "dotenv", "stack")}


def write_stack(pid: int, folder: str = ".labelmill") -> None:
    Path(folder).mkdir(exist_ok=True)
    Path(folder, "stack.json").write_text(json.dumps({"pid": pid, "broker_url": BROKERS["stack"]}))


@pytest.mark.parametrize(
    ("sources", "winner"),
    [
        ({"flag", "environment", "dotenv", "stack"}, "flag"),
        ({"environment", "dotenv", "stack"}, "environment"),
        ({"dotenv", "stack"}, "dotenv"),
        ({"stack"}, "stack"),
    ],
)
def test_the_nearest_source_of_a_setting_wins(monkeypatch: pytest.MonkeyPatch, sources: set[str], winner: str) -> None:
    if "environment" in sources:
        monkeypatch.setenv("LABELMILL_BROKER_URL", BROKERS["environment"])
    if "dotenv" in sources:
        Path(".env").write_text(f"LABELMILL_BROKER_URL={BROKERS['dotenv']}\n")
    if "stack" in sources:
        write_stack(os.getpid())
    settings = load_settings(broker_url=BROKERS["flag"] if "flag" in sources else None)
    assert settings.broker_url == BROKERS[winner]


def test_without_any_source_there_is_a_default() -> None:
    assert load_settings().broker_url == "redis://127.0.0.1:6379/0"
    assert load_settings().sql_url == f"sqlite:///{Path('.labelmill/labelmill.db').absolute()}"


def test_a_stack_whose_process_is_gone_is_ignored() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(30)
    write_stack(ended.pid)
    assert load_settings().broker_url == "redis://127.0.0.1:6379/0"


@pytest.mark.parametrize("flag", [True, False])
def test_the_stack_of_another_data_folder_is_found_there(monkeypatch: pytest.MonkeyPatch, *, flag: bool) -> None:
    write_stack(os.getpid(), "elsewhere")
    if not flag:
        monkeypatch.setenv("LABELMILL_DATA_DIR", "elsewhere")
    assert load_settings(data_dir="elsewhere" if flag else None).broker_url == BROKERS["stack"]


@pytest.mark.parametrize("written", ["", "{", "[]", "null", '{"broker_url": "redis://x"}', '{"pid": "me"}'])
def test_a_stack_file_that_says_nothing_useful_is_ignored(written: str) -> None:
    Path(".labelmill").mkdir()
    Path(".labelmill/stack.json").write_text(written)
    assert load_settings().broker_url == "redis://127.0.0.1:6379/0"


@pytest.mark.parametrize("folder", ["a%2Fb", "q?a", "q?mode=memory", "h#x", "a b", "100%", "ü@:&", "a%252Fb", "file:x"])
def test_the_database_lies_in_the_data_folder_whatever_that_is_called(tmp_path: Path, folder: str) -> None:
    settings = load_settings(data_dir=str(tmp_path / folder))
    engine = connect(settings.sql_url)
    upgrade(engine)
    engine.dispose()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.db")] == [f"{folder}/labelmill.db"]
    assert database_file(make_url(settings.sql_url)) == tmp_path / folder / "labelmill.db"


def test_a_tilde_in_the_environment_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LABELMILL_DATA_DIR", "~/data")
    write_stack(os.getpid(), str(tmp_path / "data"))
    settings = load_settings()
    assert settings.data_path == tmp_path / "data"
    assert settings.broker_url == BROKERS["stack"]
    assert connect("sqlite:///~/x/y.db").url.database == f"{tmp_path}/x/y.db"
    assert load_settings(data_dir="s3://~/x").data_dir == "s3://~/x"
