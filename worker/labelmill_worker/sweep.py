"""What makes Redis a hint: work that SQL says is owed and that no message will bring is sent again.

A sweep may run at any time and many times at once: every claim is guarded. A lease keeps sweeps from doing the work
twice. On a quiet system it is a handful of reads by index.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from labelmill.contracts.database import shorten_log
from labelmill.contracts.dispatch import dispatch_batch
from labelmill.contracts.errors import BrokerUnavailable
from labelmill.contracts.ids import model_work_id
from labelmill.contracts.messages import EVALUATE, PREPARE, TRAIN, JobMessage
from labelmill.contracts.states import DatasetState, EvaluationState, State, TrainingState
from labelmill.contracts.tables import DatasetRow, EvaluationRow, TrainingRow
from labelmill_worker.bootstrap import Services
from labelmill_worker.store import owed
from labelmill_worker.store.commits import PATIENCE_S
from labelmill_worker.store.remote_wishes import overdue_wishes, put_off_wishes
from labelmill_worker.waiting import WaitingMessages

log = structlog.get_logger()

_JOBS = (
    (PREPARE, DatasetRow, (DatasetState.QUEUED, DatasetState.PREPARING)),
    (TRAIN, TrainingRow, (TrainingState.QUEUED, TrainingState.UPLOADING, TrainingState.VALIDATING,
                          TrainingState.AWAITING_APPROVAL, TrainingState.RUNNING)),
    (EVALUATE, EvaluationRow, (EvaluationState.QUEUED, EvaluationState.RUNNING)),
)  # fmt: skip


def sweep(services: Services) -> None:
    """One sweep. Raises DatabaseUnavailable."""
    engine, held_s = services.engine, services.settings.sweep_s * 0.9
    free_for_s = owed.take_lease(engine, "sweep", held_s)
    if free_for_s is None:
        return
    if free_for_s < 0:
        # what was written just before counts as run out now: workers get the time to renew their leases
        log.warning("the database's clock was set back", by_s=round(held_s - free_for_s))
        owed.hold_lease(engine, "sweep", max(held_s, services.settings.lease_s / 2))
        return
    shorten_log(engine)
    spared_s = spared_after_silence_s(free_for_s + held_s, services.settings.lease_s)
    if returned := owed.return_expired_chunks(engine, spared_s=spared_s):
        log.warning("chunks of dead workers are owed again", chunks=returned)
    batches = owed.open_batches(engine)
    owed.complete_finished_batches(engine, batches)
    waiting = WaitingMessages(services.settings.broker_url)
    try:
        for task, table, states in _JOBS:
            _send_overdue_jobs(services, waiting, task, table, states)
        _send_overdue_wishes(services, waiting)
        _forget_lost_messages(services, waiting, batches)
        for batch in batches:
            if owed.has_unsent_chunk(engine, batch.no):
                dispatch_batch(engine, services.sender, batch.id)
    except BrokerUnavailable:
        log.warning("sweep cut short: Redis cannot be reached")


def spared_after_silence_s(silence_s: float, lease_s: float) -> float:
    """For how long before now a lease may have run out without its chunk being taken away; `silence_s`: since the last
    sweep.

    When nobody swept for long, the database was away perhaps: from the workers as well, which could not renew their
    leases and still hold answers that are paid for. They write them within moments, and the next sweep spares nobody.
    """
    # a lease is renewed every third of it: less silence than two thirds lets none run out. Beyond their patience
    # workers hold no answers any more
    return silence_s if lease_s / 2 < silence_s < PATIENCE_S + lease_s else 0.0


def _send_overdue_jobs(
    services: Services, waiting: WaitingMessages, task: str, table: owed.JobTable, states: Sequence[State]
) -> None:
    overdue = owed.overdue_jobs(services.engine, table, states)
    if not overdue or waiting.jobs is None:
        return
    lost = [job_id for job_id in overdue if job_id not in waiting.jobs]
    services.sender.send(task, [JobMessage(job_id=job_id) for job_id in lost])
    owed.put_off(services.engine, table, overdue)
    if lost:
        log.info("jobs sent again", task=task, jobs=lost)


def _send_overdue_wishes(services: Services, waiting: WaitingMessages) -> None:
    overdue = overdue_wishes(services.engine, owed.LOST_AFTER_S)
    if not overdue or waiting.jobs is None:
        return
    ids = [work_id for work_id in map(model_work_id, overdue) if work_id not in waiting.jobs]
    services.sender.send(TRAIN, [JobMessage(job_id=work_id) for work_id in ids])
    put_off_wishes(services.engine, overdue)


def _forget_lost_messages(services: Services, waiting: WaitingMessages, batches: Sequence[owed.OpenBatch]) -> None:
    """As many chunks get a new message as messages are missing: each brings a worker to one chunk that is owed."""
    overdue = {batch: chunks for batch in batches if (chunks := owed.overdue_chunks(services.engine, batch.no))}
    missing = sum(map(len, overdue.values())) - waiting.for_chunks if overdue else 0
    for batch, chunks in overdue.items():
        if missing > 0:
            owed.forget_messages(services.engine, batch.no, chunks[:missing])
            log.info("messages were lost", job_id=batch.id, chunks=chunks[:missing])
            missing -= len(chunks)
