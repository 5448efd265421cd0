"""`/v1/chat/completions` with a JSON schema whose enums are the labels: one text a request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labelmill.contracts.label_schema import LabelSchema
from labelmill_worker.inference.chat_replies import read_chat_reply
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.prompt import Example, check_reply, prompt_tokens, request_body
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.outcomes import Answer
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies.strategy import Strategy, Vector
from labelmill_worker.inference.vectors import check_vectors, embedding_call
from labelmill_worker.ports.inference import Call, Endpoint, Reply


class ChatPrompt(Strategy):
    """Asks a chat model with the version's prompt. With a pool of examples every text is embedded first, and shown the
    examples nearest to it."""

    def __init__(self, model: ModelVersion, pool: ExamplePool | None) -> None:
        self.model = model.remote_model
        self._recipe = model.recipe
        self._pool = pool
        self.vector_model = str(self._recipe["embedding_model"]) if pool is not None else None
        self._examples: Sequence[Example] = self._recipe.get("examples") or ()
        self._schema = self.schema = model.schema or LabelSchema(())

    def plan(self, rows: Sequence[int], texts: Sequence[str]) -> Iterator[Request]:
        shown = self._examples
        if self._pool is not None:
            shown = self._pool.rows[: len(self._pool.members) * int(self._recipe["shots"])]  # about as long as others
        overhead = prompt_tokens(self._recipe, self._schema, shown)
        for index in range(len(rows)):
            yield Request(rows[index : index + 1], texts[index : index + 1], overhead)

    def vector_call(self, request: Request) -> Call | None:
        return embedding_call(self.vector_model, request.texts) if self.vector_model is not None else None

    def read_vector(self, reply: Reply) -> Vector:
        assert self._pool is not None  # noqa: S101 - only with a pool there was such a call
        vector: Vector = check_vectors(reply.document.get("data"), 1, self._pool.vectors.shape[1])[0]
        return vector

    def call(self, request: Request, vector: Vector | None) -> Call:
        (text,) = request.texts
        examples = self._examples
        if self._pool is not None and vector is not None:
            examples = self._pool.nearest(vector, int(self._recipe["shots"]))
        body = request_body(self.model, self._recipe, self._schema, text, examples)
        return Call(Endpoint.CHAT_COMPLETIONS, body)

    def read(self, request: Request, reply: Reply, schema: LabelSchema) -> Answer:
        message = read_chat_reply(reply)
        return Answer(request, schema, check_reply(message.content, message.finish_reason, schema), reply.tokens)
