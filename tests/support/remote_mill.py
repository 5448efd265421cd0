"""A worker without Celery, on batches that run in Mistral's Batch API, which is in memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from memory_batch_jobs import MemoryBatchJobs
from memory_mistral import MemoryMistral
from mill import MODEL, Mill
from mistral_answers import KEY
from sqlalchemy import select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.messages import ChunkMessage, JobMessage
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, RemoteBatchRow
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill.services.context import ServiceContext
from labelmill_worker.runtime.bootstrap import ProcessResources
from labelmill_worker.runtime.recovery.sweep import _send_overdue_remote_batches
from labelmill_worker.runtime.tasks import classify

DEADLINE_S = 90.0


class RemoteMill(Mill):
    """Carries out messages at once, whatever delay they ask for."""

    def __init__(self, engine: Engine, redis_url: str, folder: Path, **settings: Any) -> None:
        self.memory = MemoryMistral()
        self.jobs = MemoryBatchJobs(self.memory)
        given: dict[str, Any] = {
            "texts_per_request": 10,
            "lease_s": 15,
            "poll_s": 0.001,
            "data_dir": str(folder),
            "broker_url": redis_url,
            "mistral_url": "http://127.0.0.1:9",  # whatever is sent in realtime fails
            "MISTRAL_API_KEY": KEY,
        }
        self.settings = Settings(**given | settings)
        self.engine = engine
        self.waiting: deque[ChunkMessage] = deque()
        self.sender = cast("MessageSender", self)
        self.resources = ProcessResources(self.settings, engine, self.sender, batch_jobs_override=self.jobs)
        self.context = ServiceContext(engine, self.sender, self.resources.storage)

    def serve_realtime(self, url: str) -> None:
        """Send what is sent in realtime to a server."""
        self.settings = self.settings.model_copy(update={"mistral_url": url})
        self.resources = ProcessResources(self.settings, self.engine, self.sender, batch_jobs_override=self.jobs)

    def set_prices(self, prices: dict[str, tuple[float, float]]) -> None:
        """As if the worker had been started anew with other prices."""
        self._start_anew(prices=prices)

    def set_monthly_cap(self, usd: float) -> None:
        """As if the worker had been started anew with a cap of the month."""
        self._start_anew(monthly_cap=usd)

    def _start_anew(self, **settings: Any) -> None:
        self.settings = self.settings.model_copy(update=settings)
        self.resources = ProcessResources(self.settings, self.engine, self.sender, batch_jobs_override=self.jobs)

    def send(
        self, task: str, messages: Sequence[JobMessage], *, priority: str = "normal", countdown_s: float | None = None
    ) -> None:
        self.waiting += cast("Sequence[ChunkMessage]", messages)

    def submit(
        self, texts: Sequence[str], *, model: str = MODEL, chunk_texts: int = 50, mode: str = "batch", **options: Any
    ) -> str:
        return super().submit(texts, model=model, chunk_texts=chunk_texts, mode=mode, **options)

    def step(self) -> None:
        """Carry out one message; without any, what recovery would send."""
        if not self.waiting:
            self.recover()
        if self.waiting:
            classify.run(self.resources, self.waiting.popleft())

    def recover(self) -> None:
        """As if every step that nobody holds had been overdue for long."""
        with writing(self.engine) as connection:
            connection.execute(update(RemoteBatchRow).values(next_look_at=1.0))

        class Waiting:
            jobs: frozenset[str] = frozenset()

        _send_overdue_remote_batches(self.engine, self.sender, cast("Any", Waiting()))

    def run(self, batch_id: str, *, to_the_end: bool = True) -> dict[str, Any]:
        """Until the batch has ended and everything is cleaned up."""
        end = time.monotonic() + DEADLINE_S
        while (status := self.status(batch_id))["state"] in ("queued", "running") or (to_the_end and self.live()):
            assert time.monotonic() < end, status
            self.step()
        return status

    def live(self) -> int:
        """Remote batches that are not done."""
        with reading(self.engine) as connection:
            return len(connection.scalars(select(RemoteBatchRow.no).where(RemoteBatchRow.step != "done")).all())

    def remote(self) -> list[RemoteBatchRow]:
        """All remote batches, in their order."""
        with reading(self.engine) as connection:
            rows = connection.execute(select(RemoteBatchRow.__table__).order_by(RemoteBatchRow.no)).mappings()
            return [RemoteBatchRow(**row) for row in rows]

    def until_step(self, batch_id: str, step: str) -> None:
        """Until a remote batch waits for that step."""
        self.until(lambda: any(row.step == step for row in self.remote()), batch_id)

    def until(self, condition: Callable[[], bool], batch_id: str = "") -> None:
        """Carry out messages until the condition holds."""
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, batch_id and self.status(batch_id)
            self.step()

    def batch_row(self, batch_id: str) -> BatchRow:
        with reading(self.engine) as connection:
            row = connection.execute(select(BatchRow.__table__).where(BatchRow.id == batch_id)).mappings().one()
        return BatchRow(**row)

    def close(self) -> None:
        self.resources.close()
