"""`/v1/embeddings` for training: vectors to keep, no predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.text_digests import digest_of
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.outcomes import Answer
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies.strategy import Strategy, Vectors
from labelmill_worker.inference.vectors import (
    DIMENSIONS,
    check_vectors,
    embedding_call,
    pack_vectors,
    plan_embedding,
)
from labelmill_worker.ports.inference import Call, Reply


class Embedding(Strategy):
    """Embeds the texts of a dataset. The vectors are written in the transaction that counts their rows."""

    def __init__(self, model: ModelVersion, texts_per_request: int) -> None:
        self.model = model.remote_model
        self._texts_per_request = texts_per_request
        self.schema = LabelSchema(())

    def plan(self, rows: Sequence[int], texts: Sequence[str]) -> Iterator[Request]:
        return plan_embedding(rows, texts, self._texts_per_request)

    def call(self, request: Request, vectors: Vectors | None) -> Call:
        del vectors
        return embedding_call(self.model, request.texts)

    def read(self, request: Request, reply: Reply, schema: LabelSchema) -> Answer:
        vectors = check_vectors(reply.document.get("data"), len(request), DIMENSIONS.get(self.model))
        digests = map(digest_of, request.texts)
        kept = list(zip(digests, pack_vectors(vectors), strict=True))
        return Answer(request, schema, [], reply.tokens, vectors=kept)
