"""Every command explains itself, and what only looks loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from command_line import Run
from typer.core import TyperGroup

from labelmill.cli import main

pytestmark = pytest.mark.acceptance


def test_every_command_explains_itself(run: Run) -> None:
    top = run("--help")
    assert top.code == 0
    commands = ["prepare", "datasets", "train", "approve", "classify", "evaluate", "status", "watch", "results"]
    commands += ["cancel", "retry", "models", "db", "up", "demo", "emulator"]
    for command in commands:
        assert command in top.out
    for command in ("classify", "results", "models promote", "db upgrade"):
        assert "Usage: labelmill" in run(*command.split(), "-h").out


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(group, TyperGroup):
        for name in group.list_commands(None):
            yield from _commands(group.get_command(None, name), (*path, name))


def test_the_help_of_every_command_lists_its_options(run: Run) -> None:
    commands = list(_commands(typer.main.get_command(main.build_app())))
    assert len(commands) > 20
    for command in commands:
        shown = run(*command, "--help")
        assert (shown.code, shown.err) == (0, ""), command
        assert "--help" in shown.out, command


def test_commands_that_only_look_load_nothing_heavy(run: Run) -> None:
    heavy = {
        "celery",
        "kombu",
        "alembic",
        "numpy",
        "matplotlib",
        "pyarrow",
        "sklearn",
        "datasets",
        "mistralai",
        "aiohttp",
        "pyreqwest",
    }
    code = (
        "import sys, typer; from labelmill.cli.main import build_app\n"
        "typer.main.get_command(build_app()).list_commands(None)\n"
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "[]"
