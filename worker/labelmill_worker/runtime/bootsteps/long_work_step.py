"""Tells a worker, before it forks, how much long work it may do: all of its slots but one."""

from __future__ import annotations

from typing import Any

import structlog
from celery import bootsteps

from labelmill_worker.process.long_work import ForkedSlots, Slots, ThreadSlots, limit_long_work

log = structlog.get_logger()


class LongWorkStep(bootsteps.Step):
    """A step of the worker itself."""

    requires = ()

    def __init__(self, parent: Any, *, autoscale: Any = None, **options: Any) -> None:
        super().__init__(parent, **options)
        pool = parent.pool_cls.__module__.rpartition(".")[2]
        slots = 1 if pool == "solo" else _min_slots(autoscale) or parent.concurrency
        limit_long_work(slots_for_long_work(slots, forks=pool == "prefork"))
        queues = sorted(parent.app.amqp.queues.consume_from)
        if slots == 1 and len(queues) > 1:
            log.warning(
                "one slot for several queues: whatever takes long holds up all the rest; "
                "give this worker `-c 2` or more and `--pool threads`, or each queue a worker of its own",
                queues=",".join(queues),
            )


def slots_for_long_work(slots: int, *, forks: bool) -> Slots:
    """All but one; where there is only one, that one."""
    count = max(1, slots - 1)
    return ForkedSlots(count) if forks else ThreadSlots(count)


def _min_slots(autoscale: Any) -> int:
    """The minimum number of slots, as `--autoscale=MAX,MIN` has it: a string, or already numbers."""
    if not autoscale:
        return 0
    parts = autoscale.split(",") if isinstance(autoscale, str) else list(autoscale)
    return max(1, int(parts[1] or 0)) if len(parts) > 1 else 1
