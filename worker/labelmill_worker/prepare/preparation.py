"""A prepare job under its lease: claimed, worked on, recorded."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import structlog
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import (
    BrokerUnavailable,
    LabelmillError,
    Permanent,
    Retryable,
    StorageRefused,
    StorageUnavailable,
    WorkerUnable,
)
from labelmill.contracts.job_kinds import QUEUE_OF
from labelmill.contracts.messages import PREPARE, JobMessage
from labelmill.contracts.specs import PrepareSpec
from labelmill.contracts.states import DatasetState
from labelmill.core.database import writing
from labelmill.core.database.analysis_codec import save_analysis
from labelmill.core.database.tables import DatasetRow
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.queue.sender import MessageSender
from labelmill.core.storage.base import Storage
from labelmill.core.storage.references import dataset_folder, source_folder
from labelmill_worker.prepare.dataset import disk_errors, prepare_dataset
from labelmill_worker.prepare.likeness import compare_splits
from labelmill_worker.prepare.source import source_files
from labelmill_worker.process.ability import Ability
from labelmill_worker.process.delays import note_storage_fault
from labelmill_worker.process.draining import ShuttingDown, is_draining
from labelmill_worker.process.long_work import NoFreeSlot, long_slot
from labelmill_worker.process.requeue import requeue_job
from labelmill_worker.store.datasets import PreparedDataset, record_dataset
from labelmill_worker.store.faults import record_job_fault
from labelmill_worker.store.jobs import claim_job, fail_job, release_job, require_held, save_job
from labelmill_worker.store.lease_keeper import LeaseKeeper
from labelmill_worker.store.stalled import leave_to_recovery
from labelmill_worker.store.transitions import move_job

log = structlog.get_logger()

MAX_ATTEMPTS = 10  #: Of a job that meets faults which ought to pass, or whose workers die.
RETRY_S, _MAX_RETRY_S = 10.0, 600.0
_PROGRESS_S = 1.0


@dataclass(frozen=True)
class PrepareContext:
    """What a preparation works with."""

    engine: Engine
    sender: MessageSender
    ability: Ability
    storage: Storage
    lease_s: float


def retry_s(attempts: int) -> float:
    """How long a preparation waits after so many attempts; all of them take 40 minutes, longer than most outages."""
    return min(RETRY_S * 2.0 ** (attempts - 1), _MAX_RETRY_S)


def prepare_job(context: PrepareContext, job_id: str) -> None:
    """Carry out a prepare job, unless it has ended, another worker is at it, or this one has no slot for it."""
    try:
        with long_slot(context.engine, context.sender):
            _prepare_job(context, job_id)
    except NoFreeSlot as error:
        log.info("left to recovery", reason=error.message)
        leave_to_recovery(context.engine, DatasetRow, job_id)


def _prepare_job(context: PrepareContext, job_id: str) -> None:
    engine, lease_s = context.engine, context.lease_s
    claimed = claim_job(engine, DatasetRow, job_id, lease_s)
    if claimed is None:
        log.info("nothing to prepare")
        return
    job, token = claimed
    if job.state == DatasetState.QUEUED.value:
        with writing(engine) as connection:
            if not move_job(connection, job_id, DatasetState.PREPARING, old=DatasetState.QUEUED, token=token):
                return
    try:
        if job.attempts > MAX_ATTEMPTS:
            raise Permanent(f"given up: {MAX_ATTEMPTS} attempts ended without a result")
        with LeaseKeeper(engine, DatasetRow, job_id, token, lease_s) as lease:
            prepared, references = _prepare(context, job, token, lease)
        _record(context, job, token, prepared, references)
    except LeaseLost:
        log.warning("dropped: another worker has taken over")
    except ShuttingDown:
        _release(context, job, token)
    except LabelmillError as error:
        if isinstance(error, Retryable) and job.attempts < MAX_ATTEMPTS:
            log.warning("deferred", reason=error.message)
            wait_s = max(error.retry_after_s or 0.0, retry_s(job.attempts))
            release_job(engine, DatasetRow, job_id, token, poll_again_in_s=wait_s)
            note_storage_fault(engine, job_id, error, wait_s + RETRY_S)
            return
        if isinstance(error, WorkerUnable) and context.ability.leaves_to_others(error, job_id, QUEUE_OF[PREPARE]):
            save_job(engine, DatasetRow, job_id, token, attempts=job.attempts - 1)
            requeue_job(engine, context.sender, DatasetRow, job_id, token, PREPARE)
            return
        _fail(context, job_id, token, error)
    except Exception as fault:
        found = record_job_fault(engine, DatasetRow, job_id, token, fault)
        if found.is_last:
            _fail(context, job_id, token, found)
        else:
            release_job(engine, DatasetRow, job_id, token, poll_again_in_s=found.pause_s)
        raise


def _fail(context: PrepareContext, job_id: str, token: str, error: LabelmillError) -> None:
    old, new = DatasetState.PREPARING, DatasetState.FAILED
    if fail_job(context.engine, job_id, old, new, error, token):
        log.error("failed", reason=error.message)
        _delete(context, source_folder(job_id))


def _release(context: PrepareContext, job: DatasetRow, token: str) -> None:
    """Let another worker begin anew, at once; a shutdown does not count as a failed attempt."""
    save_job(context.engine, DatasetRow, job.id, token, attempts=job.attempts - 1)
    release_job(context.engine, DatasetRow, job.id, token, poll_again_in_s=0.0)
    with contextlib.suppress(BrokerUnavailable):  # recovery sends it
        context.sender.send(PREPARE, [JobMessage(job_id=job.id)])


def _prepare(
    context: PrepareContext, job: DatasetRow, token: str, lease: LeaseKeeper[DatasetRow]
) -> tuple[PreparedDataset, dict[str, str]]:
    """The dataset, and split → the reference of its file."""
    storage, folder = context.storage, dataset_folder(job.id)
    storage.prepare()
    spec = PrepareSpec.read(job.spec)
    next_report = time.monotonic() + _PROGRESS_S

    def on_progress(rows: int) -> None:
        nonlocal next_report
        lease.check()
        if is_draining():
            raise ShuttingDown("the worker shuts down; another one prepares")
        if time.monotonic() >= next_report:
            save_job(context.engine, DatasetRow, job.id, token, report={"rows_read": rows})
            next_report = time.monotonic() + _PROGRESS_S

    sources = source_files(storage, job.id, spec.files)
    with disk_errors(), storage.workspace(folder) as work:
        prepared = prepare_dataset(spec, sources, work / "dataset", on_progress=on_progress)
        rows = prepared.report["rows_read"]
        likeness = compare_splits(prepared.files, prepared.splits, on_progress=lambda: on_progress(rows))
        with writing(context.engine) as connection:
            require_held(connection, DatasetRow, job.id, token)
            save_analysis(connection, job.id, {"likeness": likeness})
        stored = storage.put_folder(work / "dataset", folder)
    return prepared, {split: stored[path.name] for split, path in prepared.files.items()}


def _record(
    context: PrepareContext, job: DatasetRow, token: str, prepared: PreparedDataset, references: dict[str, str]
) -> None:
    storage, folder = context.storage, dataset_folder(job.id)
    written, repeats = record_dataset(context.engine, storage, job.id, job.name, token, prepared, references)
    if not written:
        raise LeaseLost(f"the lease on {job.id} was lost")
    if repeats:
        _delete(context, folder)
    else:
        with contextlib.suppress(StorageUnavailable, StorageRefused):  # they are deleted with the dataset
            storage.keep_only(folder, set(references.values()))
    _delete(context, source_folder(job.id))
    log.info("ready", repeats=repeats, **prepared.splits)


def _delete(context: PrepareContext, folder: str) -> None:
    """Delete what is no longer needed. The job has ended: where the storage does not answer, `purge` deletes it."""
    try:
        context.storage.delete(folder)
    except (StorageUnavailable, StorageRefused) as error:
        log.warning("files are left behind", folder=folder, reason=error.message)
