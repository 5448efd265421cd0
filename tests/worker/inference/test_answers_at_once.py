"""Answers that come in the same moment are handed to the recorder together: none is lost, and every slot comes back."""

from __future__ import annotations

import asyncio
from typing import cast

from mill import Mill, assert_all_labelled, some_texts
from mistral_answers import KEY, result_of
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral

from labelmill.core.settings import Settings
from labelmill_worker.inference import recorder
from labelmill_worker.inference.inference_runtime import InferenceRuntime
from labelmill_worker.ports.inference import Call, Reply


class _AnswersAllAtOnce:
    """Keeps the answers back until so many calls are under way, each time."""

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._waiting: list[asyncio.Future[None]] = []

    async def send(self, call: Call) -> Reply:
        self._waiting.append(asyncio.get_running_loop().create_future())
        if len(self._waiting) == self._calls:
            for waiting in self._waiting:
                waiting.set_result(None)
            self._waiting.clear()
        else:
            await self._waiting[-1]
        return Reply({"results": [result_of(text) for text in cast("list[str]", call.body["input"])]})

    async def close(self) -> None:
        pass


def test_more_answers_than_the_recorder_takes_at_once(engine: Engine, redis_url: str) -> None:
    in_flight = 2 * recorder._AT_ONCE + 20
    settings = Settings(
        broker_url=redis_url,
        mistral_url="http://127.0.0.1:1",
        MISTRAL_API_KEY=KEY,
        texts_per_request=1,
        max_in_flight=in_flight,
        lease_s=15,
    )
    runtime = InferenceRuntime.from_settings(settings, engine, _AnswersAllAtOnce(in_flight))
    runtime._limiter._first_alone = False  # as if an answer had told that the model has no limits
    mill = Mill(engine, runtime, cast("StrictMistral", None), settings)
    texts = some_texts(3 * in_flight)
    batch = mill.submit(texts)
    assert mill.run(batch)["state"] == "completed"
    assert_all_labelled(mill, batch, texts)
    assert mill.free_slots() == in_flight
    runtime.close()
