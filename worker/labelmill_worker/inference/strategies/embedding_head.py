"""`/v1/embeddings`, then the model's own head: linear, a softmax or sigmoids over each target's labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labelmill.contracts.label_schema import LabelSchema
from labelmill_worker.inference.models.head import Head
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.outcomes import Answer
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies.strategy import Strategy, Vectors
from labelmill_worker.inference.vectors import check_vectors, embedding_call, plan_embedding
from labelmill_worker.ports.inference import Call, Reply


class EmbeddingHead(Strategy):
    """Embeds texts and applies the head to all of a request at once."""

    def __init__(self, model: ModelVersion, texts_per_request: int, head: Head) -> None:
        self.model = model.remote_model
        self._texts_per_request = texts_per_request
        self._head = head
        self.schema = head.schema

    def plan(self, rows: Sequence[int], texts: Sequence[str]) -> Iterator[Request]:
        return plan_embedding(rows, texts, self._texts_per_request)

    def call(self, request: Request, vectors: Vectors | None) -> Call:
        del vectors
        return embedding_call(self.model, request.texts)

    def read(self, request: Request, reply: Reply, schema: LabelSchema) -> Answer:
        vectors = check_vectors(reply.document.get("data"), len(request), self._head.dimensions)
        return Answer(request, schema, self._head.scores(vectors), reply.tokens)
