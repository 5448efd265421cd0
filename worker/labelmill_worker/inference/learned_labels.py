"""The labels of a model that is known by its id alone: learnt once, from the first good reply, and kept for all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.contracts.label_schema import LabelSchema
from labelmill_worker.store.commits import DATABASE_PAUSE_S, PATIENCE_S

Labels = list[dict[str, Any]]


class LearnedLabels:
    """What is known of a model's labels by one chunk. Belongs to one event loop.

    `save` keeps labels that were found and returns those that count: another worker may have been quicker.
    """

    def __init__(self, schema: LabelSchema | None, save: Callable[[Labels], Labels]) -> None:
        self.schema = schema
        self._save = save
        self._learning = asyncio.Lock()

    async def learn(self, find: Callable[[], LabelSchema]) -> LabelSchema:
        """The labels, found by `find` where none are known yet. Raises what `find` raises."""
        async with self._learning:
            if self.schema is None:
                self.schema = LabelSchema.from_json(await self._saved(find().to_json()))
            return self.schema

    async def _saved(self, found: Labels) -> Labels:
        """Waits for a database that is away: the reply is paid for, and would have to be asked for again."""
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await asyncio.to_thread(self._save, found)
            except DatabaseUnavailable:
                if time.monotonic() >= give_up_at:
                    raise
            await asyncio.sleep(DATABASE_PAUSE_S)
