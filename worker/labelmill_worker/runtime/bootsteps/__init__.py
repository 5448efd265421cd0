"""The parts that Labelmill adds to Celery's worker, a file for each. They begin before the worker takes messages.

They are steps of the worker and not of its consumer, which Celery makes anew after every outage of Redis.
"""

from __future__ import annotations

from celery import Celery

from labelmill_worker.runtime.bootsteps.heartbeat_step import HeartbeatStep
from labelmill_worker.runtime.bootsteps.long_work_step import LongWorkStep
from labelmill_worker.runtime.bootsteps.readiness_step import ReadinessStep
from labelmill_worker.runtime.bootsteps.recovery_step import RecoveryStep

_STEPS = (LongWorkStep, RecoveryStep, HeartbeatStep, ReadinessStep)


def add_bootsteps(app: Celery) -> None:
    """Give the application's workers every part. Celery orders them by what each requires."""
    app.steps["worker"].update(_STEPS)
