"""What the chunks of a process share: the event loop on which their requests run side by side, the connections to
Mistral, the slots, the rate limit, and the recorder."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from concurrent.futures import Future

import uvloop
from sqlalchemy.engine import Engine

from labelmill.core.money.prices import PriceList
from labelmill.core.settings import Settings
from labelmill.core.storage.base import Storage
from labelmill.core.storage.opening import open_storage
from labelmill_worker.inference.admission import Admission
from labelmill_worker.inference.bisection import BatchVerdicts
from labelmill_worker.inference.chunk_record import ChunkRecord
from labelmill_worker.inference.model_names import ModelNames
from labelmill_worker.inference.outcomes import Delivery
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.recorder import Delivered, LoopUpdate, Recorder
from labelmill_worker.inference.sender import ChunkOrder, ChunkSender
from labelmill_worker.inference.unused_vectors import UnusedVectors
from labelmill_worker.mistral.ratelimit.limiter import FleetLimiter
from labelmill_worker.ports.inference import Inference
from labelmill_worker.process.ability import Ability
from labelmill_worker.process.delays import Delays


class InferenceRuntime:
    """One for each process. What belongs to the loop is touched by the loop alone: other threads send it what it must
    know."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        inference: Inference,
        limiter: FleetLimiter,
        ability: Ability,
        storage: Storage,
    ) -> None:
        self.lease_s = settings.lease_s
        self.storage = storage
        self.texts_per_request = settings.texts_per_request
        self.monthly_cap = settings.monthly_cap
        self.prices = PriceList.of(settings)
        self.engine = engine
        self.ability = ability
        self.delays = Delays(engine)
        self.admission = Admission(limiter, settings.max_in_flight)
        self._inference = inference
        self._limiter = limiter
        self._verdicts = BatchVerdicts()
        self._unused_vectors = UnusedVectors()
        self._names = ModelNames(engine, limiter) if settings.model_limits else None
        self._outbox: list[Delivered] = []
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mistral-loop", daemon=True)
        self._thread.start()
        self.recorder = Recorder(engine, settings.lease_s, self._notify_loop, self.prices)

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        engine: Engine,
        inference: Inference,
        ability: Ability | None = None,
        storage: Storage | None = None,
    ) -> InferenceRuntime:
        """`inference`: in the place of Mistral. Raises WorkerUnable without a key or an address. Opens no connection
        yet."""
        limiter = FleetLimiter.from_settings(settings)
        return cls(settings, engine, inference, limiter, ability or Ability(engine), storage or open_storage(settings))

    def send(self, batch_id: str, order: ChunkOrder, requests: Iterable[Request]) -> Future[None]:
        """Send the requests of an order, from any thread. Its last delivery is made when all have their outcome. Raises
        DatabaseUnavailable."""
        if self._names is not None:
            for model in {order.strategy.model, order.strategy.vector_model or order.strategy.model}:
                self._names.tell(model, self._loop)

        async def send_all() -> None:
            verdict = self._verdicts.of(batch_id)
            sender = ChunkSender(self._inference, self.admission, verdict, order, self._unused_vectors)
            await sender.send_all(requests)

        return asyncio.run_coroutine_threadsafe(send_all(), self._loop)

    def deliver(self, record: ChunkRecord, delivery: Delivery) -> None:
        """Have the recorder write what an order's requests brought. On the loop: what one pass of it brings goes there
        together, or the recorder would wake for each and begin a transaction with the first."""
        if not self._outbox:
            self._loop.call_soon(self._hand_over)
        self._outbox.append((record, delivery))

    def _hand_over(self) -> None:
        delivered, self._outbox = self._outbox, []
        self.recorder.put_all(delivered)

    def note_answered(self, batch_id: str) -> None:
        """Something of a batch was answered elsewhere: its rows are refused each for itself."""
        self._loop.call_soon_threadsafe(self._verdicts.note_answered, batch_id)

    def _notify_loop(self, update: LoopUpdate) -> None:
        self._loop.call_soon_threadsafe(self._apply, update)

    def _apply(self, update: LoopUpdate) -> None:
        for window, until in update.renewed:
            window.prolong_lease(until)
        for window in update.closed:
            window.close()
        if update.slots:
            self.admission.release(update.slots)

    def abort_requests(self) -> None:
        """Break off what is under way; nothing can be asked any more. For a process that ends."""
        asyncio.run_coroutine_threadsafe(self._inference.close(), self._loop)

    def close(self) -> None:
        """End the connections and the loop; no chunk may be in work."""

        async def end() -> None:
            await self._inference.close()
            await self._limiter.close()

        self.delays.end()
        self.recorder.close()
        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
