"""One event loop a process, on which the requests of every chunk of that process run side by side."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy.engine import Engine

from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.settings import Settings
from labelmill.contracts.tables import ModelRow
from labelmill_worker.classify.answers import check_scores, learn_schema
from labelmill_worker.classify.planning import Request
from labelmill_worker.classify.sending import Answer, BatchVerdict
from labelmill_worker.mistral.hot import HotClient
from labelmill_worker.mistral.limiter import FleetLimiter
from labelmill_worker.store.chunks import save_learned_schema

T = TypeVar("T")


class ClassifyEngine:
    """Owns what chunks of a process share: the loop, the connections to Mistral, the slots, the rate limit."""

    def __init__(self, settings: Settings, engine: Engine, client: HotClient, limiter: FleetLimiter) -> None:
        self.settings = settings
        self.engine = engine
        self.client = client
        self.limiter = limiter
        self.slots = asyncio.Semaphore(settings.max_in_flight)
        self._verdicts: dict[str, BatchVerdict] = {}
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="mistral-loop", daemon=True)
        self._thread.start()

    @classmethod
    def from_settings(cls, settings: Settings, engine: Engine) -> ClassifyEngine:
        """Raises CredentialsRefused without a key. Opens no connection yet."""
        return cls(settings, engine, HotClient.from_settings(settings), FleetLimiter.from_settings(settings))

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def verdict(self, batch_id: str) -> BatchVerdict:
        """What this process knows of a batch."""
        if len(self._verdicts) > 1000:
            self._verdicts.clear()
        return self._verdicts.setdefault(batch_id, BatchVerdict())

    def release_slots(self, count: int) -> None:
        """Let as many further requests start, once the answers of earlier ones are recorded."""

        def release() -> None:
            for _ in range(count):
                self.slots.release()

        self.loop.call_soon_threadsafe(release)

    def close(self) -> None:
        """End the connections and the loop; no chunk may be in work."""

        async def end() -> None:
            await self.client.close()
            await self.limiter.close()

        self.start(end()).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class ListClassification:
    """Strategy: `/v1/classifications` with a list of texts."""

    def __init__(self, shared: ClassifyEngine, model: ModelRow, multi: tuple[str, ...]) -> None:
        self._shared = shared
        self._model = model
        self._multi = multi
        self._learning = asyncio.Lock()
        self.schema = LabelSchema.from_json(model.label_schema) if model.label_schema else None

    async def ask(self, request: Request) -> Answer:
        results, tokens = await self._shared.client.classify(self._model.remote_model or "", request.texts)
        schema = self.schema or await self._learn(results, request)
        return Answer(request, check_scores(results, len(request), schema), tokens)

    async def _learn(self, results: object, request: Request) -> LabelSchema:
        async with self._learning:
            if self.schema is None:
                found = learn_schema(results, self._multi)
                check_scores(results, len(request), found)  # labels are learnt from a good answer only
                kept = await asyncio.to_thread(
                    save_learned_schema, self._shared.engine, self._model.no, found.to_json()
                )
                self.schema = LabelSchema.from_json(kept)
            return self.schema
