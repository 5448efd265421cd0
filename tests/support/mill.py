"""A worker without Celery, on batches alone: submit texts, then run the messages; a strict stand-in is its Mistral."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from documents import checked
from sqlalchemy import insert, text
from sqlalchemy.engine import Engine
from strict_mistral import KEY, LABELS, StrictMistral, label_of

from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.messages import ChunkMessage, JobMessage
from labelmill.contracts.specs import ClassifySpec
from labelmill.contracts.states import BatchState
from labelmill.core.chunks.sizes import ChunkSizes
from labelmill.core.chunks.writer import BatchWriter
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, utc_now
from labelmill.core.jobs.dispatch import dispatch_batch
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill.services.jobs.documents import status_document
from labelmill.services.models import resolve_model
from labelmill_worker.inference.chunk_run import work_on_chunk
from labelmill_worker.inference.inference_runtime import InferenceRuntime
from labelmill_worker.mistral.realtime import RealtimeInference
from labelmill_worker.store.predictions import PredictionBlock

MODEL = "ft:classifier:stand-in"


PER_REQUEST = 10


DEADLINE_S = 90.0


class FakeSender:
    """Keeps messages in the order they were sent, each with the delay that was asked for."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[ChunkMessage, float]] = deque()

    def send(
        self, task: str, messages: Sequence[JobMessage], *, priority: str = "normal", countdown_s: float | None = None
    ) -> None:
        self.waiting += [(cast("ChunkMessage", message), countdown_s or 0.0) for message in messages]


class Mill:
    """A worker process without Celery: submit texts, then run the messages."""

    def __init__(self, engine: Engine, runtime: InferenceRuntime, mistral: StrictMistral, settings: Settings) -> None:
        self.settings = settings
        self.engine, self.runtime, self.mistral = engine, runtime, mistral
        self.fake = FakeSender()
        self.sender = cast("MessageSender", self.fake)
        self.delays: list[float] = []

    def submit(
        self,
        texts: Sequence[str],
        *,
        model: str = MODEL,
        chunk_texts: int = 2000,
        mode: str = "realtime",
        **options: Any,
    ) -> str:
        spec = ClassifySpec(source="-", text="text", id=None, **options)
        with writing(self.engine) as connection:
            version = resolve_model(connection, model)
            row = BatchRow(
                id=new_id(Kind.BATCH),
                state=BatchState.SUBMITTING.value,
                model_no=version.no,
                model_ref=model,
                mode=mode,
                runs_in="realtime" if mode == "realtime" else "batch",
                options=spec.model_dump(mode="json"),
                created_at=utc_now(),
            )
            values = {c.key: getattr(row, c.key) for c in BatchRow.__table__.columns if getattr(row, c.key) is not None}
            number = connection.execute(insert(BatchRow).values(values).returning(BatchRow.no)).scalar_one()
        with BatchWriter(self.engine, number, row.id, sizes=ChunkSizes(chunk_texts)) as writer:
            writer.add(texts)
            writer.finish()
        dispatch_batch(self.engine, self.sender, row.id)
        return row.id

    def work(self, batch_id: str, chunk: int = 0) -> None:
        work_on_chunk(self.runtime, self.sender, batch_id, chunk)

    def run(self, batch_id: str) -> dict[str, Any]:
        """Carry out messages, at once whatever delay they ask for, until none is left. Returns the batch's status."""
        end = time.monotonic() + DEADLINE_S
        while self.fake.waiting:
            assert time.monotonic() < end, f"not done in time: {self.status(batch_id)}"
            message, delay_s = self.fake.waiting.popleft()
            self.delays.append(delay_s)
            self.work(message.job_id, message.chunk)
        return self.status(batch_id)

    def status(self, batch_id: str) -> dict[str, Any]:
        with reading(self.engine) as connection:
            document: dict[str, Any] = dict(checked(status_document(connection, batch_id)))
        rows = document["rows"]
        assert rows["submitted"] == sum(count for name, count in rows.items() if name != "submitted"), rows
        assert all(count >= 0 for count in rows.values()), rows
        return document

    def predictions(self, batch_id: str) -> dict[int, str | None]:
        """row → label of the view that analysts read; every row at most once."""
        with reading(self.engine) as connection:
            rows = connection.execute(
                text("SELECT row, label FROM predictions WHERE batch_id = :batch ORDER BY row"), {"batch": batch_id}
            ).all()
        labels = {row: str(label) if label is not None else None for row, label in rows}
        assert len(labels) == len(rows), "a row has two answers"
        return labels

    def errors(self, batch_id: str) -> dict[int, str]:
        with reading(self.engine) as connection:
            rows = connection.execute(
                text("SELECT row, code FROM row_errors WHERE batch_id = :batch ORDER BY row"), {"batch": batch_id}
            ).all()
        codes = {row: str(code) for row, code in rows}
        assert len(codes) == len(rows), "a row has two errors"
        return codes

    def free_slots(self) -> int:
        """Slots free once everything that was scheduled on the loop is done."""

        async def count() -> int:
            await asyncio.sleep(0)
            return self.runtime.admission.free

        return asyncio.run_coroutine_threadsafe(count(), self.runtime._loop).result(60)


def open_mill(engine: Engine, mistral: StrictMistral, redis_url: str, **settings: Any) -> tuple[Mill, InferenceRuntime]:
    given: dict[str, Any] = {"texts_per_request": PER_REQUEST, "max_in_flight": 8, "lease_s": 15} | settings
    made = Settings(**given | {"broker_url": redis_url, "mistral_url": mistral.url, "MISTRAL_API_KEY": KEY})
    runtime = InferenceRuntime.from_settings(made, engine, RealtimeInference.from_settings(made))
    runtime._limiter._first_alone = False  # as if an answer had told that the model has no limits
    return Mill(engine, runtime, mistral, made), runtime


def until(condition: Callable[[], object], deadline_s: float = 60.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.005)


def some_texts(count: int) -> list[str]:
    return [f"text {'x' * (number % 4)} {number:05d}" for number in range(count)]


def assert_all_labelled(mill: Mill, batch_id: str, texts: Sequence[str]) -> None:
    assert mill.predictions(batch_id) == {row: label_of(content) for row, content in enumerate(texts)}


def assert_billed_once(mill: Mill, texts: Sequence[str]) -> None:
    assert mill.mistral.billed == Counter(set(texts))


def answers_of(labels: list[str]) -> PredictionBlock:
    """Answers to the first rows of a batch."""
    count = len(labels)
    scores = np.full((count, len(LABELS)), 0.05, np.float32)
    return PredictionBlock(0, np.arange(count), None, labels, None, scores.max(axis=1), scores)
