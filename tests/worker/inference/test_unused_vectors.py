"""Vectors that were paid for serve a later claim of their texts."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import numpy as np
from memory_mistral import MemoryMistral
from mistral_answers import LABELS, label_of, vector_of

from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_worker.inference.admission import Admission, Flow
from labelmill_worker.inference.bisection import BatchVerdict
from labelmill_worker.inference.learned_labels import LearnedLabels
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.prompt import answer_schema, system_message
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.outcomes import Answer, Deferred, Delivery
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.sender import ChunkOrder, ChunkSender
from labelmill_worker.inference.sending_window import SendingWindow
from labelmill_worker.inference.strategies.chat_prompt import ChatPrompt
from labelmill_worker.inference.unused_vectors import UnusedVectors
from labelmill_worker.mistral.ratelimit.limiter import FleetLimiter
from labelmill_worker.mistral.ratelimit.limits import RateLimits
from labelmill_worker.mistral.ratelimit.model_limiter import NoPermitInTime

SCHEMA = LabelSchema((Target("intent", tuple(sorted(LABELS))),))
ROWS = [{"text": text, "labels": {"intent": label_of(text)}} for text in ("one", "two", "three")]
RECIPE = {
    "system": system_message(SCHEMA, {}),
    "answer_schema": answer_schema(SCHEMA),
    "embedding_model": "e",
    "shots": 1,
}


class SlowChat(Admission):
    """The limit of the chat model lets nothing start at first."""

    is_slow = True

    async def reacquire(self, flow: Flow, tokens: int, until: float) -> bool:
        if self.is_slow:
            raise NoPermitInTime(9.0)
        return await super().reacquire(flow, tokens, until)


class NoDelays:
    def blocked(self, error: Exception) -> None:
        del error

    def resumed(self) -> None:
        return


def test_a_text_that_waits_for_its_chat_models_limit_pays_for_one_vector() -> None:
    mistral = MemoryMistral()
    pool = ExamplePool.of(SCHEMA, ROWS, np.array([vector_of(str(row["text"])) for row in ROWS], np.float32))
    strategy = ChatPrompt(ModelVersion("near@1", "prompt", "m", SCHEMA, RECIPE), pool)
    delivered: list[Delivery] = []

    async def claim(admission: SlowChat, vectors: UnusedVectors) -> None:
        order = ChunkOrder(
            strategy=strategy,
            labels=LearnedLabels(SCHEMA, lambda labels: labels),
            flow=Flow(1),
            window=SendingWindow(time.monotonic() + 30, time.monotonic() + 30),
            delays=cast("Any", NoDelays()),
            deliver=delivered.append,
        )
        sender = ChunkSender(mistral.inference, admission, BatchVerdict(), order, vectors)
        await sender.send_all([Request([0], ["a text"], 10)])

    async def story() -> None:
        # without a limit Redis is not asked
        admission = SlowChat(FleetLimiter("redis://127.0.0.1:1/0", "test", RateLimits()), 5)
        vectors = UnusedVectors()
        await claim(admission, vectors)
        admission.is_slow = False
        await claim(admission, vectors)
        assert vectors.of("e", ["a text"]) is None, "it has served"

    asyncio.run(story())
    outcomes = [outcome for delivery in delivered for outcome in delivery.outcomes]
    assert [type(outcome) for outcome in outcomes] == [Deferred, Answer]
    assert [body["model"] for body in mistral.bodies] == ["e", "m"]


def test_only_so_many_vectors_are_kept_and_only_all_of_a_request_are_of_use() -> None:
    vectors = UnusedVectors(max_vectors=2)
    vectors.keep("e", ["a", "b", "c"], np.eye(3, dtype=np.float32))
    assert vectors.of("e", ["a"]) is None
    assert vectors.of("e", ["a", "b"]) is None
    assert vectors.of("other", ["b"]) is None
    known = vectors.of("e", ["c", "b"])
    assert known is not None
    assert known.tolist() == [[0, 0, 1], [0, 1, 0]]
