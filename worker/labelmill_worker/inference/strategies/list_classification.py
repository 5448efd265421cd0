"""`/v1/classifications` with a list of texts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.contracts.label_schema import LabelSchema
from labelmill.core.database.tables import ModelRow
from labelmill_worker.inference.answers import check_scores, learn_schema, require_targets
from labelmill_worker.inference.models.temperature import at_temperatures
from labelmill_worker.inference.planning import Request, plan_requests
from labelmill_worker.inference.sender import Answer, Spending
from labelmill_worker.store.chunks import save_learned_schema
from labelmill_worker.store.commits import DATABASE_PAUSE_S, PATIENCE_S

if TYPE_CHECKING:
    from labelmill_worker.inference.runtime import ClassifyEngine


class ListClassification:
    """Asks a fine-tuned classifier. The labels of a model known by its id alone are those of its first good answer."""

    def __init__(
        self,
        shared: ClassifyEngine,
        model: ModelRow,
        multi: tuple[str, ...],
        named: tuple[str, ...] = (),
        temperatures: Mapping[str, float] | None = None,
    ) -> None:
        """`named`: targets that the batch's options name. `temperatures`: those at which the batch is answered."""
        self._shared = shared
        self._model = model
        self.model = self.first_model = model.remote_model or ""
        self._multi = multi
        self._named = named
        self._temperatures = temperatures or {}
        self._learning = asyncio.Lock()
        self.schema = LabelSchema.from_json(model.label_schema) if model.label_schema else None
        self.spent = Spending()

    def plan(self, rows: Sequence[int], texts: Sequence[str]) -> Iterator[Request]:
        return plan_requests(rows, texts, self._shared.settings.texts_per_request)

    async def ask(self, request: Request) -> Answer:
        results, tokens = await self._call(self.model, request.texts)
        with self.spent.unless_believed(tokens):
            schema = self.schema or await self._learn(results, request)
            scores = check_scores(results, len(request), schema)
            if self._temperatures:
                scores = at_temperatures(scores, schema, self._temperatures)
        return Answer(request, scores, tokens)

    async def _call(self, model: str, texts: Sequence[str]) -> tuple[object, int]:
        return await self._shared.client.classify(model, texts)

    async def _learn(self, results: object, request: Request) -> LabelSchema:
        async with self._learning:
            if self.schema is None:
                found = learn_schema(results, self._multi)
                check_scores(results, len(request), found)  # labels are learnt from a good answer only
                require_targets(found, self._named)
                self.schema = LabelSchema.from_json(await self._saved(found.to_json()))
            return self.schema

    async def _saved(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What is kept of the labels that were found. Waits for a database that is away: the answer is paid for, and
        would have to be asked again."""
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await asyncio.to_thread(save_learned_schema, self._shared.engine, self._model.no, found)
            except DatabaseUnavailable:
                if time.monotonic() >= give_up_at:
                    raise
            await asyncio.sleep(DATABASE_PAUSE_S)
