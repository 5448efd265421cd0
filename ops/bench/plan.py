"""How a measurement is asked for, and one batch of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack import Machine, Stack

RAW_MODEL = "ft:classifier:bench:x"


@dataclass(frozen=True)
class Plan:
    """How large and how often."""

    machine: Machine
    rows: int
    runs: int


def run_batch(
    stack: Stack, plan: Plan, rows: Path, *, latency_s: float, rate: float = 0, model: str = RAW_MODEL
) -> dict[str, Any]:
    """Submit, wait for the end. Seconds: `total` from the start of submission, `work` from the first request."""
    plan.machine.server.reset(latency_s, rate)
    worker_cpu, database_cpu = stack.worker_cpu_s(), stack.database_cpu_s()
    before = stack.count("prediction_rows")
    submitted = stack.producer("submit", rows, model)
    ended_at, ended = stack.wait_for(submitted["batch"]), time.monotonic()
    stats = plan.machine.server.stats()
    return (
        submitted
        | stats
        | {
            "total": ended_at - submitted["began_at"],
            "work": ended - stats["first_s"],
            "worker_cpu_s": stack.worker_cpu_s() - worker_cpu,
            "database_cpu_s": stack.database_cpu_s() - database_cpu,
            "written": stack.count("prediction_rows") - before,
            "peaks_kb": stack.worker_peaks_kb(),
        }
    )
