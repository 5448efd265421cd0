"""CPU seconds of processes that do one small thing: a script with the client, and everyday commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

SCRIPT = """
import sys
from labelmill import Client

with Client() as client:
    client.job(sys.argv[1]).status()
"""


def cpu_s(command: Sequence[str | Path], env: Mapping[str, str], runs: int) -> list[float]:
    """User and system time of each of `runs` processes. Modules are compiled beforehand, as in any installation."""
    with_bytecode = {name: value for name, value in env.items() if name != "PYTHONDONTWRITEBYTECODE"}
    found = []
    for _ in range(runs + 1):
        process = subprocess.Popen(command, env=with_bytecode, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{command} ended with exit code {process.returncode}")
        found.append(usage.ru_utime + usage.ru_stime)
    return found[1:]


def processes(batch_id: str, rows: Path, model: str) -> dict[str, list[str | Path]]:
    """Each process by its name in the table."""
    command = [sys.executable, "-m", "labelmill"]
    return {
        "a script that makes a `Client` and asks for one status": [sys.executable, "-c", SCRIPT, batch_id],
        "`labelmill --version`": [*command, "--version"],
        "`labelmill status ID`": [*command, "status", batch_id],
        "`labelmill results ID`": [*command, "results", batch_id],
        "`labelmill classify` of one row": [*command, "classify", rows, "--model", model],
    }
