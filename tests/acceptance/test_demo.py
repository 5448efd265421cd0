"""`labelmill demo`: what a person runs first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.acceptance]


def test_the_demo_goes_from_rows_to_labels_and_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    ended = subprocess.run(
        [sys.executable, "-m", "labelmill", "demo", "--json", "--output", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)
    assert summary["accuracy"] > 0.8
    assert "It is not Mistral" in summary["note"]
    rows = [json.loads(line) for line in Path(summary["results"]).read_text().splitlines()]
    assert [row["row"] for row in rows] == list(range(summary["splits"]["test"]))
    report = Path(summary["report"]).read_text()
    assert report.startswith("<!DOCTYPE html>")
    assert f"{summary['accuracy']:.3f}" in report
    listed = subprocess.run(["ps", "axeww", "-o", "command="], capture_output=True, text=True, check=True).stdout
    assert str(folder) not in listed


def test_the_demo_clears_no_folder_but_its_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").touch()
    ended = subprocess.run(
        [sys.executable, "-m", "labelmill", "demo", "--output", str(mine)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "was not made by `labelmill demo`" in ended.stderr
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
