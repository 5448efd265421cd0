"""One sweep: chunks of dead workers become runnable again, and what Redis lost gets a new message.

A sweep may run at any time and many times at once: every claim is guarded. A lease in SQL keeps sweeps from doing the
work twice. On a quiet system it is a handful of reads by index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from sqlalchemy.engine import Engine

from labelmill.contracts.ids import model_work_id, remote_batch_id
from labelmill.contracts.messages import TRAIN, JobMessage
from labelmill.core.database.dialects import dialect_of
from labelmill.core.jobs.dispatch import dispatch_batch, send_remote_batch
from labelmill.core.jobs.tables import LEASED_TASKS, JobTable
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill_worker.runtime.recovery.waiting import WaitingMessages
from labelmill_worker.store import stalled
from labelmill_worker.store.budgets import charge_dead_holders
from labelmill_worker.store.commits import PATIENCE_S
from labelmill_worker.store.locks import Taken, hold_lease, take_lease
from labelmill_worker.store.remote_actions import defer_actions, overdue_actions
from labelmill_worker.store.remote_batches import defer_remote_batches, overdue_remote_batches
from labelmill_worker.store.remote_stops import end_stopping
from labelmill_worker.store.uploaded_files import defer_trainings, trainings_with_files

log = structlog.get_logger()

LEASE = "sweep"
_LATE = 1.2  #: Intervals. A sweep that comes no later is as punctual as can be.


def sweep_if_due(engine: Engine, sender: MessageSender, settings: Settings) -> None:
    """One sweep, unless there was one within the interval. Raises DatabaseUnavailable, BrokerUnavailable."""
    lease = take_lease(engine, LEASE, settings.sweep_s)
    if isinstance(lease, Taken):
        sweep(engine, sender, settings, lease)


def sweep(
    engine: Engine,
    sender: MessageSender,
    settings: Settings,
    lease: Taken,
    *,
    is_stopping: Callable[[], bool] = lambda: False,
) -> None:
    """One sweep, under the lease taken for it. Raises DatabaseUnavailable, BrokerUnavailable."""
    every_s = settings.sweep_s
    if lease.free_for_s < 0:
        # what was written just before counts as run out now: workers get the time to renew their leases
        log.warning("the database's clock was set back", by_s=round(every_s - lease.free_for_s))
        hold_lease(engine, LEASE, lease.token, max(every_s, settings.lease_s / 2))
        return
    dialect_of(engine).shorten_log(engine)
    grace_s = grace_after_silence_s(lease.free_for_s + every_s, settings.lease_s, every_s)
    if returned := stalled.return_expired_chunks(engine, grace_s=grace_s):
        log.warning("chunks of dead workers are runnable again", chunks=returned)
    if charged := charge_dead_holders(engine):
        log.warning("what dead workers had reserved counts as spent", claims=charged)
    batches = stalled.runnable_batches(engine)
    stalled.complete_finished_batches(engine, batches)
    for batch in batches:
        if batch.is_stopping:  # the worker of its last remote batch may have died before it could say so
            end_stopping(engine, batch.id)
    waiting = WaitingMessages(settings.broker_url)
    for task, table in LEASED_TASKS:
        _send_overdue_jobs(engine, sender, waiting, task, table)
    _send_overdue_actions(engine, sender, waiting)
    _send_trainings_with_files(engine, sender, waiting)
    _send_overdue_remote_batches(engine, sender, waiting)
    _forget_lost_messages(engine, waiting, batches)
    for batch in batches:
        if is_stopping():
            return
        if stalled.has_unsent_chunk(engine, batch.no):
            dispatch_batch(engine, sender, batch.id)


def grace_after_silence_s(silence_s: float, lease_s: float, every_s: float) -> float:
    """For how long before now a lease may have run out without its chunk being taken away; `silence_s`: since the last
    sweep.

    After a long time without a sweep the database may have been away, for workers as well: they could not renew their
    leases and still hold answers that are paid for. They write them within seconds; the next sweep gives no grace.
    """
    # a lease is renewed every third of it: less silence than two thirds lets none run out. After `PATIENCE_S`
    # workers hold no answers any more
    is_silence = silence_s > max(lease_s / 2, _LATE * every_s)
    return silence_s if is_silence and silence_s < PATIENCE_S + lease_s else 0.0


def _send_overdue_jobs(
    engine: Engine, sender: MessageSender, waiting: WaitingMessages, task: str, table: JobTable
) -> None:
    overdue = stalled.overdue_jobs(engine, table)
    if not overdue or waiting.jobs is None:
        return
    lost = [job_id for job_id in overdue if job_id not in waiting.jobs]
    sender.send(task, [JobMessage(job_id=job_id) for job_id in lost])
    stalled.defer_jobs(engine, table, overdue)
    if lost:
        log.info("jobs sent again", task=task, jobs=lost)


def _send_overdue_actions(engine: Engine, sender: MessageSender, waiting: WaitingMessages) -> None:
    overdue = overdue_actions(engine, stalled.LOST_AFTER_S)
    if not overdue or waiting.jobs is None:
        return
    ids = [work_id for work_id in map(model_work_id, overdue) if work_id not in waiting.jobs]
    sender.send(TRAIN, [JobMessage(job_id=work_id) for work_id in ids])
    defer_actions(engine, overdue)


def _send_trainings_with_files(engine: Engine, sender: MessageSender, waiting: WaitingMessages) -> None:
    """Ended trainings whose files at Mistral are to be deleted: the worker that should have done it may have died."""
    ids = trainings_with_files(engine, stalled.LOST_AFTER_S)
    if not ids or waiting.jobs is None:
        return
    sender.send(TRAIN, [JobMessage(job_id=job_id) for job_id in ids if job_id not in waiting.jobs])
    defer_trainings(engine, ids)


def _send_overdue_remote_batches(engine: Engine, sender: MessageSender, waiting: WaitingMessages) -> None:
    overdue = overdue_remote_batches(engine, stalled.LOST_AFTER_S)
    if not overdue or waiting.jobs is None:
        return
    lost = [(number, priority) for number, priority in overdue if remote_batch_id(number) not in waiting.jobs]
    for number, priority in lost:
        send_remote_batch(sender, number, priority)
    defer_remote_batches(engine, [number for number, _ in overdue])
    if lost:
        log.info("remote batches sent again", remote_batches=[number for number, _ in lost])


def _forget_lost_messages(engine: Engine, waiting: WaitingMessages, batches: Sequence[stalled.RunnableBatch]) -> None:
    """As many chunks get a new message as messages are missing: each brings a worker to one chunk that is stalled."""
    overdue = {batch: chunks for batch in batches if (chunks := stalled.overdue_chunks(engine, batch.no))}
    missing = sum(map(len, overdue.values())) - waiting.for_chunks if overdue else 0
    for batch, chunks in overdue.items():
        if missing > 0:
            stalled.forget_messages(engine, batch.no, chunks[:missing])
            log.info("messages were lost", job_id=batch.id, chunks=chunks[:missing])
            missing -= len(chunks)
