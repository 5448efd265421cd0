"""A few of `make chaos`'s seeds, with faults of every family, on both databases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_RUN = Path(__file__).parents[2] / "ops" / "chaos" / "run.py"

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(170)]


@pytest.mark.parametrize(
    "faults",
    [
        ("kill one worker", "freeze a worker past its lease", "FLUSHALL", "PostgreSQL restarted", "disk full"),
        ("Mistral: answers are lost", "Mistral: 503", "messages come twice", "entries that are not messages"),
        ("Mistral: batch jobs expire", "Mistral: batch jobs drop lines", "kill all workers"),
    ],
    ids=["processes and servers", "Mistral and messages", "batch jobs"],
)
def test_every_promise_holds_under_a_few_random_schedules(faults: tuple[str, ...]) -> None:
    chosen = [part for name in faults for part in ("--fault", name)]
    if any("batch jobs" in name for name in faults):
        chosen += ["--work", "classify, batch mode"]
    ended = subprocess.run(
        [sys.executable, str(_RUN), "--seeds", "2", "--lanes", "2", *chosen],
        capture_output=True,
        text=True,
        check=False,
        timeout=160,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
