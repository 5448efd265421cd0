"""A training's own batch: submitted once, whatever crashes, and followed without holding a worker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from labelmill.contracts.errors import BrokerUnavailable, Permanent
from labelmill.contracts.job_kinds import ENDED
from labelmill.contracts.states import BatchState
from labelmill.core.jobs.dispatch import dispatch_batch
from labelmill_worker.store.inner_batches import InnerBatch, fill_inner_batch, read_inner_batch
from labelmill_worker.store.trainings import record_look
from labelmill_worker.train.poll import Look, NextLook
from labelmill_worker.train.polling_schedule import is_lifeless, next_look_s

_FIRST_LOOK_S = 0.5


def submit_inner_batch(look: Look, batch_id: str, blocks: Iterable[list[str]]) -> None:
    """Write the texts of a batch that is not yet open, from the beginning, and send its first chunks."""
    batch = read_inner_batch(look.engine, batch_id)
    fill_inner_batch(look.engine, batch.no, batch_id, blocks, look.require_lease)
    with contextlib.suppress(BrokerUnavailable):  # recovery sends it
        dispatch_batch(look.engine, look.sender, batch_id)


def has_ended(batch: InnerBatch) -> bool:
    """Whether the batch goes no further by itself."""
    return batch.state in ENDED


def wait_for(look: Look, batch: InnerBatch) -> NextLook:
    """When to look again at a batch that runs. Raises Permanent when nothing has moved for too long."""
    done = batch.answered + batch.failed
    details = dict(look.row.details or {})
    changed = details.get("rows_done") != done
    details |= {"rows": batch.rows, "rows_done": done}
    record_look(look.engine, look.row.id, look.token, [], changed=changed, details=details)
    unchanged_s = 0.0 if changed or look.row.changed_at is None else max(0.0, look.now - look.row.changed_at)
    if is_lifeless(unchanged_s):
        raise Permanent(f"its batch {batch.id} has not moved for {unchanged_s / 3600:.0f} hours")
    return next_look_s(look.state, unchanged_s, min(look.poll_s, _FIRST_LOOK_S))


def require_completed(batch: InnerBatch) -> None:
    """Raise the batch's own reason unless it was worked off."""
    if batch.state == BatchState.COMPLETED.value:
        return
    why = f"its batch {batch.id} ended {batch.state}: {batch.error or 'no reason is known'}"
    raise Permanent(why, code=batch.error_code)
