"""`labelmill.sweep`: a sweep, unless there was one within the interval. Recovery needs no such message: a worker's own
timer sweeps. It is accepted for those who send it still."""

from __future__ import annotations

from labelmill_worker.runtime.bootstrap import ProcessResources
from labelmill_worker.runtime.recovery.sweep import sweep_if_due


def run(resources: ProcessResources, message: None) -> None:
    """Sweep if a sweep is due."""
    del message
    sweep_if_due(resources.engine, resources.sender, resources.settings)
