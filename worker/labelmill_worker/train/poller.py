"""One poll of a training: claim it, take its next steps, record, say when to poll again. Holds no worker in between."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import structlog
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import (
    BrokerUnavailable,
    CredentialsRefused,
    DatabaseUnavailable,
    LabelmillError,
    NotFound,
    Permanent,
    Retryable,
    WorkerUnable,
)
from labelmill.contracts.job_kinds import ENDED, QUEUE_OF
from labelmill.contracts.messages import TRAIN, JobMessage
from labelmill.contracts.states import TrainingState
from labelmill.core.database import MAX_POLL_DELAY_S
from labelmill.core.database.tables import DatasetRow, TrainingRow
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.money.prices import PriceList
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill.core.storage.base import Storage
from labelmill.core.storage.opening import open_storage
from labelmill_worker.ports.control_plane import ControlPlane
from labelmill_worker.process.ability import WORKER_ID, Ability
from labelmill_worker.process.delays import reason_of
from labelmill_worker.process.long_work import NoFreeSlot
from labelmill_worker.process.requeue import requeue
from labelmill_worker.store.delays import end_delays_of_job, note_delay
from labelmill_worker.store.faults import MAX_FAULTS, record_job_fault
from labelmill_worker.store.jobs import claim_job, fail_job, read_job, release_job, save_job
from labelmill_worker.store.lease_keeper import LeaseKeeper
from labelmill_worker.store.stalled import give_to_recovery
from labelmill_worker.store.trainings import cancel_training, read_training, release_training, restart_wait
from labelmill_worker.train.factory.stopping import stop_at_mistral
from labelmill_worker.train.factory.uploaded_files import delete_uploaded_files
from labelmill_worker.train.polling_schedule import MAX_PAUSE_S, backoff_s, has_stalled, was_unwatched
from labelmill_worker.train.step_context import NextPoll, StepContext
from labelmill_worker.train.steps import take_step

log = structlog.get_logger()

_NEXT_POLL_S = 10.0  #: How long a poll itself may take: a delay counts until the next one has ended.
#: Polls, one after the other, that may fail before a cancelled training ends whose job was never started.
_MAX_CANCEL_TRIES = 5


class TrainingPoller:
    """Polls trainings. `plane` is called in each poll, so that a missing key ends a training and not a worker."""

    def __init__(
        self,
        engine: Engine,
        sender: MessageSender,
        plane: Callable[[], ControlPlane],
        settings: Settings,
        storage: Storage | None = None,
        rng: random.Random | None = None,
        ability: Ability | None = None,
    ) -> None:
        self._storage = storage or open_storage(settings)
        self._engine, self._sender, self._plane, self._settings = engine, sender, plane, settings
        self._ability = ability or Ability(engine)
        self._rng = rng or random.Random()

    def poll(self, training_id: str) -> None:
        """Take the steps that can be taken now. Does nothing when the training is not due, or another worker has it."""
        self._take_steps(training_id)
        delete_uploaded_files(self._engine, self._plane, training_id)

    def _take_steps(self, training_id: str) -> None:
        if not self._is_due(training_id):
            return
        claimed = claim_job(self._engine, TrainingRow, training_id, self._settings.lease_s)
        if claimed is None:
            return
        _, token = claimed
        with LeaseKeeper(self._engine, TrainingRow, training_id, token, self._settings.lease_s) as lease:
            try:
                wait_s = self._advance(training_id, token, lease.check)
            except LeaseLost:
                # a person moved the training meanwhile, or another worker has it: then there is no lease to release
                log.info("dropped: moved by a person or another worker")
                if not release_job(self._engine, TrainingRow, training_id, token, poll_again_in_s=0.0):
                    return
                wait_s = 0.0
        if wait_s is not None:
            self._poll_again(training_id, wait_s)

    def _advance(self, training_id: str, token: str, check: Callable[[], None]) -> float | None:
        while True:
            found = read_training(self._engine, training_id)
            if found is None or found[0].lease_token != token:
                return None
            row, now = found
            if was_unwatched(row.due_at, now):
                restart_wait(self._engine, training_id, token)
                continue
            try:
                wait_s = self._give_up(row, now, token) if row.error else take_step(self._prepared(row, now, check))
            except (DatabaseUnavailable, LeaseLost):
                raise  # nothing can be recorded; the lease runs out and recovery sends the training again
            except NoFreeSlot as error:
                log.info("left to recovery", reason=error.message)
                give_to_recovery(self._engine, TrainingRow, training_id, token)
                return None
            except Retryable as error:
                wait_s = self._after_fault(row, now, token, error)
            except Permanent as error:
                wait_s = self._after_refusal(row, now, token, error)
            except Exception as fault:
                self._after_unforeseen(row, token, fault)
                raise
            else:
                if row.attempts > 1 and not row.error:  # the first try after one that met a fault
                    end_delays_of_job(self._engine, training_id)
            if wait_s is None:
                return None
            if wait_s > 0:
                release_training(self._engine, row, token, wait_s)
                return wait_s

    def _prepared(self, row: TrainingRow, now: float, check: Callable[[], None]) -> StepContext:
        dataset = read_job(self._engine, DatasetRow, row.dataset_id)
        if dataset is None:
            raise NotFound(f"the dataset {row.dataset_id} of this training is gone")
        return StepContext(
            self._engine,
            self._sender,
            self._plane,
            row,
            dataset,
            now,
            storage=self._storage,
            poll_s=self._settings.poll_s,
            lease_s=self._settings.lease_s,
            prices=PriceList.of(self._settings),
            check=check,
        )

    def _after_fault(self, row: TrainingRow, now: float, token: str, error: Retryable) -> NextPoll:
        if _costs_nothing_more(row) and row.attempts >= _MAX_CANCEL_TRIES:
            self._cancel_here(row, token, error)
            return None
        unchanged_s = now - (row.changed_at or now)
        if has_stalled(unchanged_s) and row.state != TrainingState.AWAITING_APPROVAL:
            why = Permanent(f"given up after {unchanged_s / 3600:.0f} hours: {error.message}")
            return self._begin_giving_up(row, token, why)
        wait_s = backoff_s(row.attempts, self._settings.poll_s, self._rng, min_s=error.retry_after_s)
        self._note_delay(row, error, wait_s)
        log.warning("polls again later", reason=error.message, in_s=round(wait_s, 1), attempts=row.attempts)
        return max(wait_s, 0.05)

    def _note_delay(self, row: TrainingRow, error: LabelmillError, wait_s: float) -> None:
        """Report what delays the training, until the poll after the next wait has ended."""
        if (reason := reason_of(error)) is not None:
            note_delay(
                self._engine, WORKER_ID, row.id, reason, error.message, since_s=0.0, valid_s=wait_s + _NEXT_POLL_S
            )

    def _after_refusal(self, row: TrainingRow, now: float, token: str, error: Permanent) -> NextPoll:
        if isinstance(error, WorkerUnable) and self._ability.leaves_to_others(error, row.id, QUEUE_OF[TRAIN]):
            release_training(self._engine, row, token, 0.0)
            requeue(self._sender, TRAIN, JobMessage(job_id=row.id))
            return None
        if _costs_nothing_more(row):
            self._cancel_here(row, token, error)
            return None
        # A key or a proxy that is being replaced must not cost a model that is being paid for.
        at_mistral = row.state == TrainingState.RUNNING and row.remote_job is not None
        paid = at_mistral and not has_stalled(now - (row.changed_at or now))
        cannot_ask = isinstance(error, CredentialsRefused) or (
            isinstance(error, WorkerUnable) and error.is_about_mistral
        )
        if cannot_ask and paid:
            log.error("cannot follow the training", reason=error.message)
            return MAX_PAUSE_S
        return self._begin_giving_up(row, token, error)

    def _after_unforeseen(self, row: TrainingRow, token: str, fault: Exception) -> None:
        """Try again some times, then give the training up; what cannot be stopped at Mistral is named."""
        unforeseen = record_job_fault(self._engine, TrainingRow, row.id, token, fault)
        if unforeseen.is_last and row.error is None:
            self._begin_giving_up(row, token, unforeseen)
        elif row.error and unforeseen.count >= 2 * MAX_FAULTS:
            self._fail(row, token, _left_running(row, unforeseen))
            return
        release_training(self._engine, row, token, unforeseen.pause_s)

    def _cancel_here(self, row: TrainingRow, token: str, error: LabelmillError) -> None:
        """End a cancelled training without Mistral: a job that was never started costs nothing, and may lie."""
        log.warning("cancelled without Mistral", reason=error.message)
        message = f"cancelled; nothing of it was started at Mistral, which could not be asked again ({error.stored})"
        cancel_training(self._engine, row, token, message)

    def _begin_giving_up(self, row: TrainingRow, token: str, error: Permanent) -> NextPoll:
        """From now on the training only waits for what is left of it at Mistral to be stopped."""
        save_job(self._engine, TrainingRow, row.id, token, error=error.stored, error_code=error.code)
        return 0.0

    def _give_up(self, row: TrainingRow, now: float, token: str) -> NextPoll:
        """End the training as failed, once nothing at Mistral runs on for it."""
        try:
            stop_at_mistral(self._plane, row)
        except LabelmillError as error:
            if row.state != TrainingState.RUNNING:
                self._fail(row, token, _reason_of(row))  # a job that was never started costs nothing
                return None
            passes = isinstance(error, Retryable) or _cannot_ask(error)
            if passes and not has_stalled(now - (row.changed_at or now)):
                log.error("its job at Mistral cannot be cancelled yet", job=row.remote_job, reason=error.message)
                wait_s = max(backoff_s(row.attempts, self._settings.poll_s, self._rng), 0.05)
                self._note_delay(row, error, wait_s)
                return wait_s
            self._fail(row, token, _left_running(row, error))
        else:
            self._fail(row, token, _reason_of(row))
        return None

    def _fail(self, row: TrainingRow, token: str, error: Permanent) -> None:
        old, new = TrainingState(row.state), TrainingState.FAILED
        if fail_job(self._engine, row.id, old, new, error, token):
            log.error("training failed", reason=error.message)

    def _is_due(self, training_id: str) -> bool:
        """Each poll sends one message for the next. A second copy of it must not start a second series of polls."""
        found = read_training(self._engine, training_id)
        if found is None:
            log.warning("no such training")
            return False
        row, now = found
        if TrainingState(row.state) in ENDED:
            return False
        early_s = (row.due_at or 0.0) - now
        # further ahead than anything is deferred: written before the database's clock was set back
        return row.cancel_requested or early_s <= min(0.25, self._settings.poll_s / 2) or early_s > MAX_POLL_DELAY_S

    def _poll_again(self, training_id: str, wait_s: float) -> None:
        if wait_s > MAX_PAUSE_S:
            return  # long countdowns pile up in workers; recovery sends it then
        with contextlib.suppress(BrokerUnavailable):  # `next_look_at` stands in SQL: recovery sends it
            self._sender.send(TRAIN, [JobMessage(job_id=training_id)], countdown_s=wait_s or None)


def _costs_nothing_more(row: TrainingRow) -> bool:
    """Whether the training was cancelled before anything of it was started at Mistral."""
    return row.cancel_requested and row.state != TrainingState.RUNNING


def _cannot_ask(error: LabelmillError) -> bool:
    """Whether it is the key, or the way to Mistral, that has to be put right."""
    return isinstance(error, CredentialsRefused) or (isinstance(error, WorkerUnable) and error.is_about_mistral)


def _reason_of(row: TrainingRow, addition: str = "") -> Permanent:
    """Why a training that is given up failed, as it was stored."""
    return Permanent(f"{row.error}{addition}", code=row.error_code)


def _left_running(row: TrainingRow, error: LabelmillError) -> Permanent:
    job = f"its job {row.remote_job}" if row.remote_job else "a job that it may have"
    return _reason_of(row, f"; {job} at Mistral could not be cancelled: cancel it there ({error.message})")
