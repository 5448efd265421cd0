"""What `celery beat` runs on: one entry, the sweep, by a clock that nobody can set.

Celery's own scheduler reckons in the time of day: set back by an hour, it sends nothing for an hour. It also keeps its
state in a file, which a kill or a full disk can break; a sweep needs none.
"""

from __future__ import annotations

import contextlib
import time
from datetime import datetime
from typing import Any

from celery.beat import Scheduler
from celery.schedules import schedstate, schedule
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from labelmill.contracts.messages import QUEUE_OF, SWEEP

#: Sweeps that wait on the queue, at most: without a worker they would pile up. They need no time at which they expire,
#: for that would be a time of day again, and a worker whose clock is ahead would throw every one of them away.
MOST_WAITING = 3


class Steadily(schedule):
    """Due every `every_s` seconds of the monotonic clock."""

    def __init__(self, every_s: float) -> None:
        super().__init__(every_s)
        self._every_s = every_s
        self._due_at = 0.0

    def is_due(self, last_run_at: datetime) -> schedstate:
        del last_run_at
        now = time.monotonic()
        if now < self._due_at:
            return schedstate(is_due=False, next=self._due_at - now)
        self._due_at = now + self._every_s
        return schedstate(is_due=True, next=self._every_s)


class SweepScheduler(Scheduler):
    """Sends what is due, unless enough of it waits already."""

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        if entry.task == SWEEP and self._waiting(producer) >= MOST_WAITING:
            return
        super().apply_entry(entry, producer=producer)

    def _waiting(self, producer: Any) -> int:
        # sweeps have the first priority, whose list bears the queue's bare name
        with contextlib.suppress(OperationalError, RedisError, OSError):  # sending says what is wrong
            return int(producer.channel.client.llen(QUEUE_OF[SWEEP]))
        return 0
