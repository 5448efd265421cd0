"""`make bench` and `make chaos` start databases and servers: told to end, they leave none of them behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

OPS = Path(__file__).parents[2] / "ops"
DEADLINE_S = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.postgres]


def descendants(pid: int) -> dict[int, str]:
    """pid → name of every process below one."""
    parents: dict[int, list[tuple[int, str]]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, rest = (entry / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
            except OSError:
                continue
            parents.setdefault(int(rest.split()[1]), []).append((int(entry.name), name))
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        for child, name in parents.get(waiting.pop(), []):
            found[child] = name
            waiting.append(child)
    return found


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"  # nobody may be there to take note of its end


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (
            [
                "bench/run.py",
                "--only",
                "bulk",
                "--rows",
                "2000",
                "--runs",
                "1",
                "--database",
                "postgresql",
                "--no-write",
            ],
            143,
        ),
        (["chaos/run.py", "--seeds", "2", "--lanes", "2"], 1),
    ],
    ids=["bench", "chaos"],
)
def test_nothing_is_left_running(command: list[str], code: int, tmp_path: Path, postgres_server: object) -> None:
    del postgres_server  # where there is none, there is nothing to see
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, OPS / command[0], *command[1:]], stdout=log, stderr=log, cwd=tmp_path
        )
    started: dict[int, str] = {}
    deadline = time.monotonic() + DEADLINE_S
    while not all(any(word in name for name in started.values()) for word in ("postgres", "server")):
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline, started
        started |= descendants(process.pid)
        time.sleep(0.05)
    started |= descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == code, (tmp_path / "log").read_text()
    deadline = time.monotonic() + DEADLINE_S
    while left := {pid: name for pid, name in started.items() if runs(pid)}:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
