"""`make` with an interpreter that Labelmill was not tested with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def _interpreter(folder: Path, version: tuple[int, int, int]) -> Path:
    """A Python that says it is of another version, and that makes no environment."""
    path = folder / "python"
    said = ".".join(map(str, version))
    path.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] || {{ echo "asked for $*"; exit 1; }}\n'
        f"exec {sys.executable} -c \"import sys; sys.version = '{said} (main)'; sys.version_info = {version}\n$2\"\n"
    )
    path.chmod(0o755)
    return path


def _make(folder: Path, version: tuple[int, int, int], *words: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "-C", str(_ROOT), "demo", f"VENV={folder / 'venv'}", f"PYTHON={_interpreter(folder, version)}"]
    # the tests may run under `make test PYTHON=…` themselves
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "ANY_PYTHON"}
    return subprocess.run([*command, *words], env=own, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 10, 13)])
def test_an_older_python_is_refused_in_one_sentence(tmp_path: Path, version: tuple[int, int, int]) -> None:
    ended = _make(tmp_path, version)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[0].startswith("Labelmill needs Python 3.11 or newer; this is ")
    assert "asked for" not in ended.stdout
    assert not (tmp_path / "venv").exists()


def test_a_newer_python_than_those_tested_is_refused_in_one_sentence_and_tried_when_told_so(tmp_path: Path) -> None:
    ended = _make(tmp_path, (3, 15, 0))
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[0].startswith("Labelmill is tested with Python 3.11 to 3.14, and for 3.15.0 ")
    assert "asked for" not in ended.stdout
    assert "asked for -m venv" in _make(tmp_path, (3, 15, 0), "ANY_PYTHON=yes").stdout


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 14, 2)])
def test_a_tested_python_makes_the_environment(tmp_path: Path, version: tuple[int, int, int]) -> None:
    assert "asked for -m venv" in _make(tmp_path, version).stdout


def test_an_environment_of_another_version_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    shutil.copy(_interpreter(tmp_path, (3, 11, 7)), tmp_path / "venv" / "bin" / "python")
    (tmp_path / "venv" / ".installed-from-lock").touch()
    assert "asked for -m venv --clear" in _make(tmp_path, (3, 13, 0)).stdout
    assert "asked for" not in _make(tmp_path, (3, 11, 9)).stdout
