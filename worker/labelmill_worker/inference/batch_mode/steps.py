"""The steps of a remote batch: pack → upload → create → wait → read → clean up. Each can be repeated after a crash at
any line. A step returns the seconds until the next one; 0 goes on at once, None: nothing is left to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import structlog

from labelmill.contracts.errors import (
    LabelmillError,
    MalformedAnswer,
    MonthlyLimitReached,
    Permanent,
    RateLimited,
    RemoteFailed,
    RemoteUnavailable,
    WorkerUnable,
)
from labelmill.contracts.states import RemoteStep, Stopping
from labelmill.core.jobs.delays import DelayReason
from labelmill.core.money.costs import priced_model
from labelmill_worker.inference.batch_mode.creation import create, timeout_hours
from labelmill_worker.inference.batch_mode.moving import move_in_time, patience_to_move_s
from labelmill_worker.inference.batch_mode.packing import line_of, pack
from labelmill_worker.inference.batch_mode.remote_job import (
    GONE,
    answered_requests,
    end_gone_job,
    end_job,
    jobs_with_marker,
    look_at_job,
    stop_doubles,
    why_it_failed,
)
from labelmill_worker.inference.batch_mode.results import ResultReader
from labelmill_worker.inference.batch_mode.schedule import next_poll_s, retry_pause_s
from labelmill_worker.inference.batch_mode.stopping import STOP_PATIENCE_S, drop, never_made, stop
from labelmill_worker.inference.batch_mode.verdicts import no_result
from labelmill_worker.inference.batch_mode.work import RemoteWork
from labelmill_worker.ports import batch_jobs as port
from labelmill_worker.process.ability import WORKER_ID
from labelmill_worker.process.long_work import long_slot
from labelmill_worker.store.budgets import least_left, release, reserve
from labelmill_worker.store.delays import end_delays_of_job, note_delay
from labelmill_worker.store.remote_batches import (
    advance,
    drop_remote_batch,
    held_chunks,
    keep_packed,
    open_for_packing,
    require_remote,
    reserve_requests,
    save_remote,
    tokens_left_of_month,
    unreserved_batches,
)
from labelmill_worker.store.remote_stops import pause_at_cap, stop_batch_of

log = structlog.get_logger()

NextStep = float | None

_FILE_EXPIRY_HOURS = 7 * 24  #: Of uploaded files, should they not be deleted.
_LATE_S = 3600.0  #: A job that Mistral has not ended so long after its time-out is stopped.
_CAP_PAUSE_S = 2.0  #: While others hold what is left of a cap.
_UNRESERVED_PAUSE_S = 10.0  #: While another job costs what no cap has reserved.
_SHOWN = 3  #: Batches that a sentence names.
_ROOM_PAUSE_S = 30.0  #: While Mistral's limit of pending requests is reached.
_MAX_FAILED_READS = 5  #: Of results; then the rows without a result are sent again.
READING_PATIENCE_S = 3600.0  #: But not sooner after the job's end, while no deadline presses: its results are paid for.
LIMITED_READING_PATIENCE_S = 24 * 3600.0  #: Where Mistral only asks for fewer requests: it keeps results for a day.


def take_step(work: RemoteWork) -> NextStep:
    """Take the next step."""
    step, batch = work.claim.step, work.claim.batch
    if not batch.is_wanted and step in _UNWANTED:
        return _UNWANTED[step](work)
    if batch.deadline_s is None or step not in _UNWANTED:
        return _STEPS[step](work)
    decide_again_s, may_step = move_in_time(work)
    if decide_again_s is None:
        return 0  # as it is read again, the batch is being stopped
    wait_s = _STEPS[step](work) if may_step else decide_again_s
    return wait_s and min(wait_s, decide_again_s)


def _pack(work: RemoteWork) -> NextStep:
    guard = partial(require_remote, claim=work.claim)
    release(work.engine, work.claim.holder.key, guard)  # of an attempt that died before it could say what it packed
    caps = work.caps
    if caps and (unreserved := _unreserved_batches(work)):
        _note_unreserved(work, unreserved)
        return _UNRESERVED_PAUSE_S
    if caps and work.claim.now - work.claim.row.begun_at >= _UNRESERVED_PAUSE_S:  # it may have waited for them
        end_delays_of_job(work.engine, work.claim.batch.id)
    cap, left = least_left(work.engine, caps) if caps else (None, None)
    with long_slot(work.engine, work.context.sender):
        on_trial = open_for_packing(work.engine, work.claim)
        packed = pack(work, on_trial=on_trial, left=left, tokens_left=tokens_left_of_month(work.engine, work.claim))
    if not packed.count and packed.too_dear and cap is not None:
        return 0 if pause_at_cap(work.engine, work.claim, cap, packed.too_dear) else _CAP_PAUSE_S
    if not packed.count and packed.exceeds_month:
        stop_batch_of(work.engine, work.claim, MonthlyLimitReached.of(work.claim.batch.model.remote_model))
        return 0
    if not packed.count:
        drop_remote_batch(work.engine, work.claim)
        return None
    waits_s = retry_pause_s(packed.tries or 0, work.poll_s) - (work.claim.now - work.claim.row.begun_at)
    if waits_s > 0:
        return waits_s
    if caps and reserve(work.engine, caps, work.claim.holder, packed.bound, guard) is not None:
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
        tokens=packed.tokens,
    )
    return 0


def _unreserved_batches(work: RemoteWork) -> list[str]:
    """The batches of which another job that the caps count was made before there was a cap: what it costs is not known
    until it is read."""
    of_month = work.context.settings.monthly_cap is not None
    found = []
    for batch_id, model in unreserved_batches(work.engine, work.claim, of_month=of_month):
        price = work.prices.price_of(priced_model(model, work.prices))
        if price is None or price.input or price.output:
            found.append(batch_id)
    return list(dict.fromkeys(found))


def _note_unreserved(work: RemoteWork, batches: list[str]) -> None:
    more = f" and {len(batches) - _SHOWN:,} more" if len(batches) > _SHOWN else ""
    message = (
        f"batch jobs of {', '.join(batches[:_SHOWN])}{more} were made without a cap, and what they cost is not known "
        "before their results are read"
    )
    note_delay(
        work.engine,
        WORKER_ID,
        work.claim.batch.id,
        DelayReason.UNRESERVED,
        message,
        since_s=0.0,
        valid_s=3 * _UNRESERVED_PAUSE_S,  # the next poll may come late
    )


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


def _wait(work: RemoteWork) -> NextStep:
    row = work.claim.row
    waited_s = work.claim.now - (row.made_at or work.claim.now)
    if waited_s > timeout_hours(work) * 3600 + _LATE_S:
        return stop(work)
    if row.stop_asked_at is not None:  # of a batch that was stopped and goes on; the next stop has its own patience
        save_remote(work.engine, work.claim, stop_asked_at=None)
    job = look_at_job(work)
    if job is None:
        return end_gone_job(work)
    if job.has_ended:
        return end_job(work, job)
    answered = answered_requests(row, job)
    if job.status != row.remote_status or answered != row.answered:
        save_remote(work.engine, work.claim, remote_status=job.status, answered=answered)
    return next_poll_s(waited_s, work.poll_s)


def _read(work: RemoteWork) -> NextStep:
    row, batch = work.claim.row, work.claim.batch
    with long_slot(work.engine, work.context.sender):
        reader = ResultReader(work)
        is_complete = _read_results(work, reader)
        if not is_complete:
            work.charge_reserved()
        save_remote(
            work.engine,
            work.claim,
            single_answers=max(row.single_answers, reader.single_answers),
            refused_lists=max(row.refused_lists, reader.refused_lists),
        )
        failed_as_a_whole = row.remote_status == port.FAILED and not reader.has_lines
        words = why_it_failed(work) if failed_as_a_whole else ""
        refusal = None
        if batch.is_wanted:
            refusal = reader.refusal_of_jobs(words) if failed_as_a_whole else reader.refusal()
        if refusal is not None:
            stop_batch_of(work.engine, work.claim, refusal)
            log.error("batch stopped", reason=refusal.message)
        # a job that expired or was stopped did not try the rest; one that did nothing at all would do so for ever
        counts_missing = row.remote_status == port.SUCCESS or not reader.answers
        missing = no_result(words) if counts_missing else None
        reader.let_chunks_go(
            missing=missing,
            is_wanted=batch.is_wanted and refusal is None,
            undelivered=_undelivered(work, reader) if is_complete else None,
        )
    advance(work.engine, work.claim, RemoteStep.CLEANING)
    return 0


def _read_results(work: RemoteWork, reader: ResultReader) -> bool:
    """Returns whether all that the job was answered could be read. Raises RemoteUnavailable, RateLimited when that is
    to be tried again."""
    row = work.claim.row
    files = [file_id for file_id in (row.output_file, row.error_file) if file_id]
    sources: list[Callable[[], Iterable[port.ResultLine]]] = [partial(work.jobs.results, file_id) for file_id in files]
    if not files and row.remote_id and row.remote_status != GONE:  # some results come with the job alone
        sources = [partial(work.jobs.inline_results, row.remote_id)]
    is_complete = True
    for results_of in sources:
        try:
            reader.read(results_of())
        except (RemoteFailed, RemoteUnavailable, MalformedAnswer, RateLimited) as error:
            if _may_read_again(work, error):
                if isinstance(error, RateLimited):
                    raise  # says nothing of the results
                save_remote(work.engine, work.claim, failed_reads=row.failed_reads + 1)
                raise RemoteUnavailable(error.message) from error
            log.warning("results could not be read to their end", remote_job=row.remote_id, reason=error.message)
            is_complete = False
    return is_complete


def _undelivered(work: RemoteWork, reader: ResultReader) -> int | None:
    """How many requests that have no line Mistral answered all the same, and is paid for; None: all that have none."""
    row = work.claim.row
    if row.remote_status == GONE:
        return None
    if reader.requests_with_lines >= row.requests:
        return 0
    ended_well = row.remote_status == port.SUCCESS
    try:
        job = work.jobs.get(row.remote_id or "")
    except LabelmillError:
        return None if ended_well else 0
    if ended_well and job.succeeded_requests + job.failed_requests < row.requests:
        return None  # its counts are not those of its end
    return max(0, job.succeeded_requests - reader.answered_requests)


def _may_read_again(work: RemoteWork, error: LabelmillError) -> bool:
    batch, row, now = work.claim.batch, work.claim.row, work.claim.now
    is_limited, since_end_s = isinstance(error, RateLimited), now - (row.ended_at or now)
    if not is_limited and row.failed_reads < _MAX_FAILED_READS:
        return True
    if is_limited and batch.deadline_s is not None and batch.stopping != Stopping.CANCEL.value:
        return patience_to_move_s(work, since_end_s) > 0
    if batch.deadline_s is not None or isinstance(error, RemoteFailed):
        return False
    patience_s = LIMITED_READING_PATIENCE_S if is_limited else READING_PATIENCE_S
    return since_end_s < (patience_s if batch.is_wanted else STOP_PATIENCE_S)


def _clean(work: RemoteWork) -> NextStep:
    row = work.claim.row
    guard = partial(require_remote, claim=work.claim)
    release(work.engine, work.claim.holder.key, guard)  # first: what Mistral does not delete must not keep a cap taken
    files = [file_id for file_id in (row.input_file, row.output_file, row.error_file) if file_id]
    if not row.inline and row.input_file is None:  # its upload may have reached Mistral all the same
        files += [file.id for file in work.jobs.find_files(work.file_name)]
    jobs = [row.remote_id] if row.remote_id else []
    if row.creations > len(jobs):
        doubles = [job for job in jobs_with_marker(work) if job.id != row.remote_id]
        stop_doubles(work, doubles)
        files += [file_id for job in doubles for file_id in (job.output_file, job.error_file) if file_id]
        jobs += [job.id for job in doubles]
    deletions = [partial(work.jobs.delete_file, file_id) for file_id in files]
    if row.inline:
        deletions += [partial(work.jobs.delete_job, job_id) for job_id in jobs]
    for delete in deletions:
        try:
            delete()
        except WorkerUnable:
            raise
        except Permanent as error:
            log.warning("something could not be deleted at Mistral", what=delete.args[0], reason=error.message)
    advance(work.engine, work.claim, RemoteStep.DONE)
    return None


_STEPS: dict[RemoteStep, Callable[[RemoteWork], NextStep]] = {
    RemoteStep.PACKING: _pack,
    RemoteStep.UPLOADING: _upload,
    RemoteStep.CREATING: create,
    RemoteStep.WAITING: _wait,
    RemoteStep.READING: _read,
    RemoteStep.CLEANING: _clean,
}
_UNWANTED: dict[RemoteStep, Callable[[RemoteWork], NextStep]] = {
    RemoteStep.PACKING: drop,
    RemoteStep.UPLOADING: never_made,
    RemoteStep.CREATING: never_made,
    RemoteStep.WAITING: stop,
}
