"""A training's own batch: submitted once, whatever crashes, and followed without holding a worker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from labelmill.contracts.errors import BrokerUnavailable, Permanent
from labelmill.contracts.job_kinds import ENDED
from labelmill.contracts.states import BatchState
from labelmill.core.jobs.dispatch import dispatch_batch
from labelmill_worker.store.inner_batches import InnerBatch, fill_inner_batch, read_inner_batch
from labelmill_worker.store.trainings import record_poll
from labelmill_worker.train.polling_schedule import has_stalled, next_poll_s
from labelmill_worker.train.step_context import NextPoll, StepContext

_FIRST_POLL_S = 0.5


def submit_inner_batch(step: StepContext, batch_id: str, blocks: Iterable[list[str]]) -> None:
    """Write the texts of a batch that is not yet open, from the beginning, and send its first chunks."""
    batch = read_inner_batch(step.engine, batch_id)
    fill_inner_batch(step.engine, batch.no, batch_id, blocks, step.require_lease)
    with contextlib.suppress(BrokerUnavailable):  # recovery sends it
        dispatch_batch(step.engine, step.sender, batch_id)


def has_ended(batch: InnerBatch) -> bool:
    """Whether the batch goes no further by itself."""
    return batch.state in ENDED


def wait_for(step: StepContext, batch: InnerBatch) -> NextPoll:
    """When to poll again at a batch that runs. Raises Permanent when nothing has moved for too long."""
    done = batch.answered + batch.failed
    details = dict(step.row.details or {})
    changed = details.get("rows_done") != done
    details |= {"rows": batch.rows, "rows_done": done}
    record_poll(step.engine, step.row.id, step.token, [], changed=changed, details=details)
    unchanged_s = 0.0 if changed or step.row.changed_at is None else max(0.0, step.now - step.row.changed_at)
    if has_stalled(unchanged_s):
        raise Permanent(f"its batch {batch.id} has not moved for {unchanged_s / 3600:.0f} hours")
    return next_poll_s(step.state, unchanged_s, min(step.poll_s, _FIRST_POLL_S))


def require_completed(batch: InnerBatch) -> None:
    """Raise the batch's own reason unless it was worked off."""
    if batch.state == BatchState.COMPLETED.value:
        return
    why = f"its batch {batch.id} ended {batch.state}: {batch.error or 'no reason is known'}"
    raise Permanent(why, code=batch.error_code)
