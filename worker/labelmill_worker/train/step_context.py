"""What every step of a training gets: the training as it stands, under its lease, and the means to change it.

A step is a function `StepContext → NextPoll`: it takes one step and returns the seconds until the next; 0 goes on at
once, None means that the training has ended. Every step can be repeated after a crash at any line.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import RemoteFailed
from labelmill.contracts.specs import TrainSpec
from labelmill.contracts.states import TrainingState
from labelmill.core.database import db_now, writing
from labelmill.core.database.tables import DatasetRow, TrainingRow
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.money.prices import LISTED, PriceList
from labelmill.core.queue.sender import MessageSender
from labelmill.core.storage.base import Storage, StoredFile
from labelmill_worker.ports import control_plane as port
from labelmill_worker.process.long_work import long_slot
from labelmill_worker.store.jobs import note_held, renew_job, require_held
from labelmill_worker.store.split_files import split_file
from labelmill_worker.store.trainings import cancel_training, update_held
from labelmill_worker.store.transitions import move_job

NextPoll = float | None


@dataclass(frozen=True)
class StepContext:
    """One poll of one training, under its lease. `row` is as read at `now` (seconds, the database's clock)."""

    engine: Engine
    sender: MessageSender
    plane_of: Callable[[], port.ControlPlane]
    row: TrainingRow
    dataset: DatasetRow
    now: float
    storage: Storage
    poll_s: float
    lease_s: float
    prices: PriceList = LISTED
    #: Raises LeaseLost once nothing more may be written: to be called now and then by long work.
    check: Callable[[], None] = lambda: None

    @property
    def plane(self) -> port.ControlPlane:
        """Files and jobs at Mistral. Raises CredentialsRefused without a key."""
        return self.plane_of()

    @property
    def spec(self) -> TrainSpec:
        """What was asked for."""
        return TrainSpec.read(self.row.options)

    def split_file(self, split: str) -> StoredFile | None:
        """The file of a split of the dataset; None when it has no rows. Raises InvalidInput for a file that lies
        elsewhere."""
        return split_file(self.storage, self.dataset, split) if (self.dataset.splits or {}).get(split) != 0 else None

    @property
    def token(self) -> str:
        """What writes are guarded by."""
        return self.row.lease_token or ""

    @property
    def state(self) -> TrainingState:
        """Where the training stands."""
        return TrainingState(self.row.state)

    def save(self, **values: Any) -> None:
        """Write facts about the training. Raises LeaseLost."""
        with writing(self.engine) as connection:
            update_held(connection, self.row.id, self.token, **values)

    def begin_phase(self, phase: str) -> None:
        """Note for `progress` what is done from now on, until a batch is opened. Raises LeaseLost."""
        details = self.row.details or {}
        if details.get("phase") != phase:
            self.save(details=details | {"phase": phase})

    def long_slot(self) -> AbstractContextManager[None]:
        """Hold a slot for long work. Raises NoFreeSlot."""
        return long_slot(self.engine, self.sender)

    def note(self, message: str) -> None:
        """Leave a line in the training's history. Raises LeaseLost."""
        note_held(self.engine, TrainingRow, self.row.id, self.token, message)

    def confirm_lease(self) -> None:
        """Renew the lease now, before what must not be done twice. Raises LeaseLost, also when a person has cancelled
        the training since it was read."""
        if not renew_job(self.engine, TrainingRow, self.row.id, self.token, self.lease_s, self._is_wanted):
            raise LeaseLost(f"the lease on {self.row.id} was lost")

    def require_lease(self, connection: Connection) -> None:
        """Keep the lease until the connection's transaction ends. Raises LeaseLost, as `confirm_lease` does."""
        require_held(connection, TrainingRow, self.row.id, self.token, self._is_wanted)

    @property
    def _is_wanted(self) -> ColumnElement[bool]:
        return TrainingRow.cancel_requested.is_(self.row.cancel_requested)

    def move(self, new: TrainingState, message: str, **values: Any) -> None:
        """Move the training and leave a line in its history. Raises LeaseLost when it was moved meanwhile."""
        with writing(self.engine) as connection:
            moved = move_job(
                connection,
                self.row.id,
                new,
                old=self.state,
                token=self.token,
                message=message,
                changed_at=db_now(),
                attempts=0,
                **values,
            )
            if not moved:
                raise LeaseLost(f"{self.row.id} was moved by a person or another worker")

    def cancel(self) -> None:
        """End the training as cancelled, its batch with it. Raises LeaseLost when it was moved meanwhile."""
        cancel_training(self.engine, self.row, self.token, "cancelled")

    def remote_job(self, job_id: str) -> port.RemoteJob:
        """The job at Mistral. Raises RemoteFailed when it is gone."""
        try:
            return self.plane.get_job(job_id)
        except RemoteFailed as error:
            raise RemoteFailed(f"Mistral no longer knows this training's job {job_id}") from error
