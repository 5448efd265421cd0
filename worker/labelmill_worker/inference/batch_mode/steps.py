"""The steps of a remote batch: pack → upload → create → wait → read → clean up. Each can be repeated after a crash at
any line. A step returns the seconds until the next one; 0 goes on at once, None: nothing is left to do."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable
from functools import partial

import structlog

from labelmill.contracts.errors import Permanent, RemoteFailed, RemoteUnavailable, WorkerUnable
from labelmill.contracts.states import Mode, RemoteStep, Stopping
from labelmill.core.database import db_now
from labelmill_worker.inference.batch_mode.moving import move_in_time, stop_patience_s
from labelmill_worker.inference.batch_mode.packing import line_of, pack
from labelmill_worker.inference.batch_mode.results import ResultReader
from labelmill_worker.inference.batch_mode.schedule import next_poll_s, retry_pause_s
from labelmill_worker.inference.batch_mode.work import RemoteWork
from labelmill_worker.ports import batch_jobs as port
from labelmill_worker.ports.inference import Endpoint
from labelmill_worker.process.long_work import long_slot
from labelmill_worker.store.budgets import charge_holder, least_left, release, reserve
from labelmill_worker.store.remote_batches import (
    advance,
    drop_remote_batch,
    held_chunks,
    keep_packed,
    let_all_go,
    open_for_packing,
    pause_at_cap,
    reserve_requests,
    save_remote,
    stop_batch_of,
)

log = structlog.get_logger()

NextStep = float | None

TIMEOUT_HOURS = 24  #: After which Mistral ends a job as it stands.
_FILE_EXPIRY_HOURS = 7 * 24  #: Of uploaded files, should they not be deleted.
_LATE_S = 3600.0  #: A job that Mistral has not ended so long after its time-out is stopped.
#: A job that was asked to stop and has not ended: what it was answered until then is not waited for any longer.
STOP_PATIENCE_S = 900.0
_CAP_PAUSE_S = 2.0  #: While others hold what is left of a cap.
_ROOM_PAUSE_S = 30.0  #: While Mistral's limit of pending requests is reached.
_MAX_FAILED_READS = 5  #: Of result files; then the rows without a result are sent again.
READING_PATIENCE_S = 3600.0  #: But not sooner after the job's end, while no deadline presses: its results are paid for.
_MARKER = "labelmill"  #: The key of the marker in a job's metadata.


def take_step(work: RemoteWork) -> NextStep:
    """Take the next step."""
    step, batch = work.claim.step, work.claim.batch
    if not batch.is_wanted and step in _UNWANTED:
        return _UNWANTED[step](work)
    if batch.deadline_s is None or step not in _UNWANTED:
        return _STEPS[step](work)
    decide_again_s = move_in_time(work)
    if decide_again_s is None:
        return 0  # as it is read again, the batch is being stopped
    wait_s = _STEPS[step](work)
    return wait_s and min(wait_s, decide_again_s)


def _pack(work: RemoteWork) -> NextStep:
    release(work.engine, work.claim.holder.key)  # of an attempt that died before it could say what it packed
    caps = work.caps
    cap, left = least_left(work.engine, caps) if caps else (None, None)
    with long_slot(work.engine, work.context.sender):
        packed = pack(work, on_trial=open_for_packing(work.engine, work.claim), left=left)
    if not packed.count and packed.too_dear and cap is not None:
        return 0 if pause_at_cap(work.engine, work.claim, cap, packed.too_dear) else _CAP_PAUSE_S
    if not packed.count:
        drop_remote_batch(work.engine, work.claim)
        return None
    waits_s = retry_pause_s(packed.tries or 0, work.poll_s) - (work.claim.now - work.claim.row.begun_at)
    if waits_s > 0:
        return waits_s
    if caps and reserve(work.engine, caps, work.claim.holder, packed.bound) is not None:
        return _CAP_PAUSE_S  # others were quicker
    keep_packed(
        work.engine,
        work.claim,
        packed.requests,
        step=RemoteStep.UPLOADING.value,
        embeds=packed.embeds,
        endpoint=packed.endpoint,
        model=packed.model,
        inline=packed.is_inline,
        requests=packed.count,
        lists=packed.lists,
        rows=packed.rows,
        reserved=packed.bound,
    )
    return 0


def _upload(work: RemoteWork) -> NextStep:
    row = work.claim.row
    if not row.inline and row.input_file is None:
        with long_slot(work.engine, work.context.sender):
            save_remote(work.engine, work.claim, input_file=_uploaded_file(work))
    return 0 if reserve_requests(work.engine, work.claim) else _ROOM_PAUSE_S


def _uploaded_file(work: RemoteWork) -> str:
    """The id of its file at Mistral: one that an earlier attempt uploaded, or a new one."""
    with work.local_file() as path:
        with path.open("wb") as file:
            for call in work.call_maker().held_calls(held_chunks(work.engine, work.claim)):
                work.check()
                file.write(line_of(call))
        if work.claim.row.attempts:
            for found in work.jobs.find_files(work.file_name):
                if found.size_bytes == path.stat().st_size:
                    return found.id
                work.jobs.delete_file(found.id)
        work.confirm_lease()
        return work.jobs.upload(path, work.file_name, _FILE_EXPIRY_HOURS)


def _create(work: RemoteWork) -> NextStep:
    row = work.claim.row
    job = _job_made_before(work)
    if job is None:
        calls = list(work.call_maker().held_calls(held_chunks(work.engine, work.claim))) if row.inline else ()
        work.confirm_lease()
        job = work.jobs.create(
            Endpoint(row.endpoint or ""),
            row.model or "",
            file_id=row.input_file,
            calls=calls,
            metadata={_MARKER: row.marker, "batch": work.claim.batch.id},
            timeout_hours=_timeout_hours(work),
        )
    made = f"batch job {job.id} made at Mistral: {row.requests:,} requests for {row.rows:,} texts"
    advance(
        work.engine,
        work.claim,
        RemoteStep.WAITING,
        made,
        remote_id=job.id,
        remote_status=job.status,
        made_at=db_now(),
    )
    log.info("batch job made", remote_job=job.id, requests=row.requests, texts=row.rows)
    return work.poll_s


def _timeout_hours(work: RemoteWork) -> int:
    deadline_s = work.claim.batch.deadline_s
    return TIMEOUT_HOURS if deadline_s is None else max(1, min(168, math.ceil(deadline_s / 3600)))


def _job_made_before(work: RemoteWork) -> port.RemoteBatch | None:
    """The job that an earlier attempt made, whose answer was lost."""
    row = work.claim.row
    if not row.attempts:  # this worker has just come to this step: nobody has tried
        return None
    found = work.jobs.find({_MARKER: row.marker}, row.begun_at - 3600)
    for double in found[1:]:
        log.warning("a second batch job with the same marker is stopped", remote_job=double.id)
        with contextlib.suppress(Permanent):
            work.jobs.cancel(double.id)
    return found[0] if found else None


def _wait(work: RemoteWork) -> NextStep:
    row = work.claim.row
    try:
        job = work.jobs.get(row.remote_id or "")
    except WorkerUnable:
        raise
    except RemoteFailed as error:
        log.warning("Mistral does not know a batch job any more", remote_job=row.remote_id, reason=error.message)
        return _read_what_is_there(work, f"batch job {row.remote_id} is gone at Mistral", None)
    if job.has_ended:
        return _read_what_is_there(work, f"batch job {job.id} ended {job.status}", job)
    answered = job.succeeded_requests + job.failed_requests
    if job.status != row.remote_status or answered != row.answered:
        save_remote(work.engine, work.claim, remote_status=job.status, answered=answered)
    waited_s = work.claim.now - (row.made_at or work.claim.now)
    if waited_s > _timeout_hours(work) * 3600 + _LATE_S:
        return _stop(work)
    return next_poll_s(waited_s, work.poll_s)


def _read_what_is_there(work: RemoteWork, message: str, job: port.RemoteBatch | None) -> NextStep:
    advance(
        work.engine,
        work.claim,
        RemoteStep.READING,
        message,
        remote_status=job.status if job else "GONE",
        answered=job.succeeded_requests + job.failed_requests if job else 0,
        output_file=job.output_file if job else None,
        error_file=job.error_file if job else None,
        ended_at=db_now(),
    )
    return 0


def _read(work: RemoteWork) -> NextStep:
    row, batch = work.claim.row, work.claim.batch
    with long_slot(work.engine, work.context.sender):
        reader = ResultReader(work)
        try:
            _read_results(work, reader)
        except RemoteUnavailable:
            if row.failed_reads < _MAX_FAILED_READS or _may_wait_for_results(work):
                save_remote(work.engine, work.claim, failed_reads=row.failed_reads + 1)
                raise
            log.warning("the results of a batch job could not be read to their end", remote_job=row.remote_id)
        save_remote(
            work.engine,
            work.claim,
            single_answers=max(row.single_answers, reader.single_answers),
            refused_lists=max(row.refused_lists, reader.refused_lists),
        )
        refusal = reader.refusal() if batch.is_wanted else None
        if refusal is not None:
            stop_batch_of(work.engine, work.claim, refusal)
            log.error("batch stopped", reason=refusal.message)
        # a job that expired or was stopped did not try the rest; one that did nothing at all would do so for ever
        counts_missing = row.remote_status == port.SUCCESS or not reader.answers
        reader.let_chunks_go(counts_missing=counts_missing, is_wanted=batch.is_wanted and refusal is None)
    advance(work.engine, work.claim, RemoteStep.CLEANING)
    return 0


def _may_wait_for_results(work: RemoteWork) -> bool:
    batch, now = work.claim.batch, work.claim.now
    if batch.deadline_s is not None:
        return False
    patience_s = READING_PATIENCE_S if batch.is_wanted else STOP_PATIENCE_S
    return now - (work.claim.row.ended_at or now) < patience_s


def _read_results(work: RemoteWork, reader: ResultReader) -> None:
    row = work.claim.row
    files = [file_id for file_id in (row.output_file, row.error_file) if file_id]
    sources: list[Callable[[], Iterable[port.ResultLine]]] = [partial(work.jobs.results, file_id) for file_id in files]
    if not files and row.remote_id:  # some results come with the job alone
        sources = [partial(work.jobs.inline_results, row.remote_id)]
    for results_of in sources:
        try:
            reader.read(results_of())
        except WorkerUnable:
            raise
        except RemoteFailed as error:  # the file or the job is gone: what it held counts as missing
            log.warning("results are gone", remote_job=row.remote_id, reason=error.message)


def _clean(work: RemoteWork) -> NextStep:
    row = work.claim.row
    files = [file_id for file_id in (row.input_file, row.output_file, row.error_file) if file_id]
    if not row.inline and row.input_file is None:  # its upload may have reached Mistral all the same
        files += [file.id for file in work.jobs.find_files(work.file_name)]
    deletions = [partial(work.jobs.delete_file, file_id) for file_id in files]
    if row.inline and row.remote_id:
        deletions.append(partial(work.jobs.delete_job, row.remote_id))
    for delete in deletions:
        try:
            delete()
        except WorkerUnable:
            raise
        except Permanent as error:
            log.warning("something could not be deleted at Mistral", what=delete.args[0], reason=error.message)
    release(work.engine, work.claim.holder.key)
    advance(work.engine, work.claim, RemoteStep.DONE)
    return None


# of a batch that has ended, or is being stopped


def _drop(work: RemoteWork) -> NextStep:
    release(work.engine, work.claim.holder.key)
    drop_remote_batch(work.engine, work.claim)
    return None


def _never_made(work: RemoteWork) -> NextStep:
    """It is not made any more, unless an attempt before has made it."""
    job = _job_made_before(work) if work.claim.step is RemoteStep.CREATING else None
    if job is not None:
        advance(work.engine, work.claim, RemoteStep.WAITING, remote_id=job.id, made_at=db_now())
        return 0
    let_all_go(work.engine, work.claim, RemoteStep.CLEANING, "a batch job was not made: the batch was stopped")
    return 0


def _stop(work: RemoteWork) -> NextStep:
    """Have Mistral stop it, and wait for its end: what it was answered so far is read."""
    row = work.claim.row
    if row.stop_asked_at is None:
        with contextlib.suppress(RemoteFailed):  # it has ended, or is gone: the next look tells
            work.jobs.cancel(row.remote_id or "")
        save_remote(work.engine, work.claim, stop_asked_at=db_now())
        return min(1.0, work.poll_s)
    waited_s = work.claim.now - row.stop_asked_at
    moves = work.claim.batch.stopping == Stopping.REALTIME.value
    patience_s = stop_patience_s(work) if moves else STOP_PATIENCE_S
    try:
        job = work.jobs.get(row.remote_id or "")
    except WorkerUnable:
        raise
    except (RemoteFailed, RemoteUnavailable) as error:
        if waited_s < patience_s and not isinstance(error, RemoteFailed):
            raise
        job = None
    if job is not None and job.has_ended:
        return _read_what_is_there(work, f"batch job {job.id} ended {job.status}", job)
    if job is None or waited_s >= patience_s:
        lost = f"batch job {row.remote_id} did not end after it was stopped: its results are not waited for"
        charge_holder(work.engine, work.claim.holder.key, work.claim.batch.no, Mode.BATCH.value)
        let_all_go(work.engine, work.claim, RemoteStep.CLEANING, lost)
        return 0
    return next_poll_s(waited_s, min(1.0, work.poll_s))


_STEPS: dict[RemoteStep, Callable[[RemoteWork], NextStep]] = {
    RemoteStep.PACKING: _pack,
    RemoteStep.UPLOADING: _upload,
    RemoteStep.CREATING: _create,
    RemoteStep.WAITING: _wait,
    RemoteStep.READING: _read,
    RemoteStep.CLEANING: _clean,
}
_UNWANTED: dict[RemoteStep, Callable[[RemoteWork], NextStep]] = {
    RemoteStep.PACKING: _drop,
    RemoteStep.UPLOADING: _never_made,
    RemoteStep.CREATING: _never_made,
    RemoteStep.WAITING: _stop,
}
