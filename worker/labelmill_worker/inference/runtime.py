"""One event loop a process, on which the requests of every chunk of that process run side by side."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import uvloop
from sqlalchemy.engine import Engine

from labelmill.core.settings import Settings
from labelmill_worker.inference.admission import Turnstile
from labelmill_worker.inference.recorder import Recorder
from labelmill_worker.inference.sender import BatchVerdict
from labelmill_worker.mistral.ratelimit.limiter import FleetLimiter
from labelmill_worker.mistral.realtime import HotClient
from labelmill_worker.process.ability import Ability
from labelmill_worker.process.delays import Delays

T = TypeVar("T")


class ClassifyEngine:
    """Owns what chunks of a process share: the loop, the connections to Mistral, the slots, the rate limit."""

    def __init__(
        self, settings: Settings, engine: Engine, client: HotClient, limiter: FleetLimiter, ability: Ability
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.client = client
        self.limiter = limiter
        self.ability = ability
        self.delays = Delays(engine)
        self.turnstile = Turnstile(limiter, settings.max_in_flight)
        self._verdicts: dict[str, BatchVerdict] = {}
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="mistral-loop", daemon=True)
        self._thread.start()
        self.recorder = Recorder(engine, settings.lease_s, self._release_slots)

    @classmethod
    def from_settings(cls, settings: Settings, engine: Engine, ability: Ability | None = None) -> ClassifyEngine:
        """Raises WorkerUnable without a key or an address. Opens no connection yet."""
        client, limiter = HotClient.from_settings(settings), FleetLimiter.from_settings(settings)
        return cls(settings, engine, client, limiter, ability or Ability(engine))

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def verdict(self, batch_id: str) -> BatchVerdict:
        """What this process knows of a batch."""
        if len(self._verdicts) > 1000:
            self._verdicts.clear()
        return self._verdicts.setdefault(batch_id, BatchVerdict())

    def _release_slots(self, count: int) -> None:
        """Let as many further requests start, once the answers of earlier ones are recorded."""
        if count:
            self.loop.call_soon_threadsafe(self.turnstile.leave, count)

    def give_up_requests(self) -> None:
        """Break off what is under way; nothing can be asked any more. For a process that ends."""
        self.start(self.client.close())

    def close(self) -> None:
        """End the connections and the loop; no chunk may be in work."""

        async def end() -> None:
            await self.client.close()
            await self.limiter.close()

        self.delays.end()
        self.recorder.close()
        self.start(end()).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
