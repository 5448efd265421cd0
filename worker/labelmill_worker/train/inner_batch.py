"""A training's own batches: each submitted once, whatever crashes, and followed without holding a worker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from labelmill.contracts.errors import BrokerUnavailable, Permanent
from labelmill.contracts.specs import ClassifySpec
from labelmill.contracts.states import BatchState, Mode
from labelmill.core.database import writing
from labelmill.core.database.tables import TrainingRow
from labelmill.core.jobs.dispatch import dispatch_batch
from labelmill.core.jobs.inner_batches import named_batches_of
from labelmill_worker.store.inner_batches import InnerBatch, fill_inner_batch, open_inner_batch, read_inner_batch
from labelmill_worker.store.trainings import record_poll, update_held
from labelmill_worker.train.polling_schedule import has_stalled, next_poll_s
from labelmill_worker.train.step_context import NextPoll, StepContext

_FIRST_POLL_S = 0.5


def submit_inner_batch(step: StepContext, batch_id: str, blocks: Iterable[list[str]]) -> None:
    """Write the texts of a batch that is not yet open, from the beginning, and send its first chunks."""
    batch = read_inner_batch(step.engine, batch_id)
    fill_inner_batch(step.engine, batch.no, batch_id, blocks, step.require_lease)
    with contextlib.suppress(BrokerUnavailable):  # recovery sends it
        dispatch_batch(step.engine, step.sender, batch_id)


def named_batches(step: StepContext) -> dict[str, str]:
    """The training's batches by what they are for, as `run_named_batch` opened them."""
    return named_batches_of(step.row.details, step.row.batch_id)


def run_named_batch(
    step: StepContext,
    name: str,
    model_no: int,
    model_ref: str,
    blocks: Callable[[], Iterable[list[str]]],
    **options: Any,
) -> InnerBatch | NextPoll:
    """Bring one of the training's batches on. `options`: of its specification. Returns it once it has ended; before,
    when to poll again."""
    batches = named_batches(step)
    if name not in batches:
        with writing(step.engine) as connection:
            step.require_lease(connection)
            batch_id = open_inner_batch(
                connection,
                TrainingRow,
                step.row.id,
                step.token,
                model_no=model_no,
                model_ref=model_ref,
                spec=ClassifySpec(source=f"{step.dataset.name}@{step.dataset.version}", **options),
                mode=step.spec.mode,
            )
            details = {"batches": batches | {name: batch_id}}
            update_held(connection, step.row.id, step.token, details=details)
        return 0.0  # the next step reads the training anew, and submits
    batch = read_inner_batch(step.engine, batches[name])
    if batch.state == BatchState.SUBMITTING.value:
        with step.long_slot():
            submit_inner_batch(step, batch.id, blocks())
        batch = read_inner_batch(step.engine, batch.id)
    return batch if batch.has_ended else wait_for(step, batch)


def wait_for(step: StepContext, batch: InnerBatch) -> NextPoll:
    """When to poll again at a batch that runs. Raises Permanent when nothing has moved for too long."""
    done = batch.answered + batch.failed
    details = dict(step.row.details or {})
    changed = details.get("rows_done") != done
    details |= {"rows": batch.rows, "rows_done": done}
    record_poll(step.engine, step.row.id, step.token, [], changed=changed, details=details)
    unchanged_s = 0.0 if changed or step.row.changed_at is None else max(0.0, step.now - step.row.changed_at)
    if step.spec.mode != Mode.BATCH.value and has_stalled(unchanged_s):  # batch jobs have time-outs of their own
        raise Permanent(f"its batch {batch.id} has not moved for {unchanged_s / 3600:.0f} hours")
    return next_poll_s(step.state, unchanged_s, min(step.poll_s, _FIRST_POLL_S))


def require_completed(batch: InnerBatch) -> None:
    """Raise the batch's own reason unless it was worked off."""
    if batch.state == BatchState.COMPLETED.value:
        return
    why = f"its batch {batch.id} ended {batch.state}: {batch.error or 'no reason is known'}"
    raise Permanent(why, code=batch.error_code)
