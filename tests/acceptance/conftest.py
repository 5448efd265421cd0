"""The command, run in this process; a local stack, shared by the tests that need one."""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import NOBODY_REDIS, Ended, Run, write_files
from local_stack import running_up

from labelmill.cli import main


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data folder of a running stack with the emulator; for tests of modules that run in one process."""
    folder = tmp_path_factory.mktemp("stack") / "data"
    with running_up(folder):
        yield folder


@pytest.fixture
def run(sqlite_template: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in a folder with some files, a fresh database and a dead Redis."""
    shutil.copy(sqlite_template, "jobs.db")
    write_files()

    def run_command(*arguments: str, stdin: str = "", **environment: str) -> Ended:
        with monkeypatch.context() as patch:
            patch.setenv("LABELMILL_DATABASE_URL", "sqlite:///jobs.db")
            patch.setenv("LABELMILL_BROKER_URL", NOBODY_REDIS)
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["labelmill", *arguments])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            started = time.monotonic()
            with pytest.raises(SystemExit) as ended:
                main.run()
            took_s = time.monotonic() - started
        out, err = capsys.readouterr()
        assert "Traceback" not in err, err
        assert "\x1b" not in out + err, "no terminal, no escape codes"
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, out, err, took_s)

    return run_command
