"""What every step of a remote batch gets: the remote batch under its lease, and the means to go on with it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy.engine import Engine

from labelmill.contracts.states import Mode, RemoteStep
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.money.prices import PriceList
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill.core.storage.base import Storage
from labelmill.core.storage.new_files import make_private_file
from labelmill_worker.inference.batch_mode.calls import CallMaker
from labelmill_worker.ports.batch_jobs import BatchJobs
from labelmill_worker.process.ability import Ability
from labelmill_worker.process.draining import ShuttingDown, is_draining
from labelmill_worker.store.budgets import Cap, caps_of, charge_holder
from labelmill_worker.store.chunks import Claim, claim_chunk_of_remote
from labelmill_worker.store.remote_batches import RemoteClaim, held_chunks, let_all_go, renew_remote_batch, takes_lists

_FOLDER = "remote_batches"  #: Of the data folder: files on their way to Mistral.


@dataclass(frozen=True)
class BatchModeContext:
    """What remote batches are worked on with. `jobs_of` raises CredentialsRefused without a key."""

    engine: Engine
    sender: MessageSender
    ability: Ability
    storage: Storage
    jobs_of: Callable[[], BatchJobs]
    settings: Settings
    rng: random.Random


@dataclass(frozen=True)
class RemoteWork:
    """One poll of one remote batch."""

    context: BatchModeContext
    claim: RemoteClaim
    check_lease: Callable[[], None]  #: Raises LeaseLost once nothing more may be written.

    @property
    def engine(self) -> Engine:
        return self.context.engine

    @property
    def jobs(self) -> BatchJobs:
        """Batch jobs at Mistral. Raises CredentialsRefused without a key."""
        return self.context.jobs_of()

    @property
    def lease_s(self) -> float:
        return self.context.settings.lease_s

    @property
    def poll_s(self) -> float:
        return self.context.settings.poll_s

    @property
    def prices(self) -> PriceList:
        return PriceList.of(self.context.settings)

    @property
    def caps(self) -> tuple[Cap, ...]:
        """On what may be spent."""
        batch = self.claim.batch
        return caps_of(batch.charged_to, batch.max_cost, self.context.settings.monthly_cap)

    def claim_chunk(self, number: int) -> Claim | None:
        """Claim a chunk of the batch. None: it is done. Raises ChunkBusy."""
        return claim_chunk_of_remote(
            self.engine,
            self.claim.batch.id,
            number,
            self.lease_s,
            reserved_by=self.claim.holder.key,
            monthly_cap=self.context.settings.monthly_cap,
        )

    def charge_reserved(self) -> None:
        """Count as spent what is still reserved for it: it may have been paid for, and no answer will say."""
        charge_holder(self.engine, self.claim.holder.key, self.claim.batch.no, Mode.BATCH.value)

    def give_up_answers(self, message: str) -> None:
        """Go on to the step `cleaning` without what its requests may have been answered: they count as spent."""
        usage = None
        if not self.claim.row.reserved and self.claim.step is not RemoteStep.READING:  # then most of them are recorded
            usage = self.call_maker().estimated_usage(held_chunks(self.engine, self.claim))
        self.charge_reserved()
        let_all_go(self.engine, self.claim, RemoteStep.CLEANING, message, usage, self.prices)

    @property
    def file_name(self) -> str:
        """The name of its file, here and at Mistral."""
        return f"labelmill-{self.claim.row.marker}.jsonl"

    def with_claim(self, claim: RemoteClaim) -> RemoteWork:
        """The same, as it was read again."""
        return replace(self, claim=claim)

    def check(self) -> None:
        """Raise LeaseLost, or ShuttingDown, when the step should not go on: to be called now and then by long ones."""
        self.check_lease()
        if is_draining():
            raise ShuttingDown("this worker shuts down")

    def confirm_lease(self) -> None:
        """Renew the lease now, before what must not be done twice. Raises LeaseLost."""
        if not renew_remote_batch(self.engine, self.claim.row.no, self.claim.token, self.lease_s):
            raise LeaseLost("the lease on a remote batch was lost")

    def call_maker(self, *, embeds: bool | None = None, one_text: bool = False) -> CallMaker:
        """What makes the calls. `one_text`: each with one text, also where the endpoint takes lists."""
        batch, settings = self.claim.batch, self.context.settings
        model = batch.model.remote_model or ""
        texts = settings.texts_per_request if not one_text and takes_lists(self.engine, model) else 1
        embeds = self.claim.row.embeds if embeds is None else embeds
        return CallMaker.of(self.engine, batch, self.context.storage, texts, embeds=embeds)

    @contextmanager
    def local_file(self) -> Iterator[Path]:
        """An empty private file, removed at the end. One that a killed worker left is removed first."""
        with self.context.storage.workspace(f"{_FOLDER}/{self.claim.row.marker}") as folder:
            path = folder / self.file_name
            make_private_file(path)
            yield path
