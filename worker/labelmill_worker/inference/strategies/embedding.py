"""`/v1/embeddings` for training: vectors to keep, no predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from labelmill.contracts.label_schema import LabelSchema
from labelmill.core.database.tables import ModelRow
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.sender import Answer, Spending
from labelmill_worker.inference.vectors import (
    DIMENSIONS,
    check_vectors,
    embedding_input,
    pack_vectors,
    plan_embedding,
)
from labelmill_worker.store.vectors import digest_of

if TYPE_CHECKING:
    from labelmill_worker.inference.runtime import ClassifyEngine


class Embedding:
    """Embeds the texts of a dataset. The vectors are written in the transaction that counts their rows."""

    schema = LabelSchema(())

    def __init__(self, shared: ClassifyEngine, model: ModelRow) -> None:
        self._shared = shared
        self.model = self.first_model = model.remote_model or ""
        self.spent = Spending()

    def plan(self, rows: Sequence[int], texts: Sequence[str]) -> Iterator[Request]:
        return plan_embedding(rows, texts, self._shared.settings.texts_per_request)

    async def ask(self, request: Request) -> Answer:
        data, tokens = await self._shared.client.embed(self.model, embedding_input(request.texts))
        with self.spent.unless_believed(tokens):
            vectors = check_vectors(data, len(request), DIMENSIONS.get(self.model))
        digests = map(digest_of, request.texts)
        return Answer(request, [], tokens, vectors=list(zip(digests, pack_vectors(vectors), strict=True)))
