"""`/v1/embeddings`, then the model's own head: linear, a softmax or sigmoids over each target's labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from labelmill.core.database.tables import ModelRow
from labelmill_worker.inference.models.head import Head
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.sender import Answer, Spending
from labelmill_worker.inference.vectors import check_vectors, embedding_input, plan_embedding

if TYPE_CHECKING:
    from labelmill_worker.inference.runtime import ClassifyEngine


class EmbeddingHead:
    """Embeds texts and applies the head to all of a request at once."""

    def __init__(self, shared: ClassifyEngine, model: ModelRow, head: Head) -> None:
        self._shared = shared
        self.model = self.first_model = model.remote_model or ""
        self._head = head
        self.schema = head.schema
        self.spent = Spending()

    def plan(self, rows: Sequence[int], texts: Sequence[str]) -> Iterator[Request]:
        return plan_embedding(rows, texts, self._shared.settings.texts_per_request)

    async def ask(self, request: Request) -> Answer:
        data, tokens = await self._shared.client.embed(self.model, embedding_input(request.texts))
        with self.spent.unless_believed(tokens):
            vectors = check_vectors(data, len(request), self._head.dimensions)
        return Answer(request, self._head.scores(vectors), tokens)
