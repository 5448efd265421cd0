"""`/v1/chat/completions` with a JSON schema whose enums are the labels: one text a request."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.label_schema import LabelSchema
from labelmill.core.database.tables import ModelRow
from labelmill_worker.inference.admission import MAX_LIMIT_WAIT_S
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.prompt import Example, check_reply, prompt_tokens, request_body
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.sender import Answer, Spending
from labelmill_worker.inference.vectors import check_vectors, embedding_input

if TYPE_CHECKING:
    from labelmill_worker.inference.runtime import ClassifyEngine

_KEPT_VECTORS = 256


class ChatPrompt:
    """Asks a chat model with the version's prompt. With a pool of examples every text is embedded first, and shown the
    examples nearest to it."""

    def __init__(self, shared: ClassifyEngine, model: ModelRow, pool: ExamplePool | None) -> None:
        self._shared = shared
        self.model = model.remote_model or ""
        self._recipe: dict[str, Any] = model.recipe or {}
        self._pool = pool
        self.first_model = self.model if pool is None else str(self._recipe["embedding_model"])
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._examples: Sequence[Example] = self._recipe.get("examples") or ()
        self.schema = LabelSchema.from_json(model.label_schema or [])
        self.spent = Spending()

    def plan(self, rows: Sequence[int], texts: Sequence[str]) -> Iterator[Request]:
        shown = self._examples
        if self._pool is not None:
            shown = self._pool.rows[: len(self._pool.members) * int(self._recipe["shots"])]  # about as long as others
        overhead = prompt_tokens(self._recipe, self.schema, shown)
        for index in range(len(rows)):
            yield Request(rows[index : index + 1], texts[index : index + 1], overhead)

    async def ask(self, request: Request) -> Answer:
        (text,) = request.texts
        examples = self._examples
        if self._pool is not None:
            examples = self._pool.nearest(await self._embedded(text, request.tokens), int(self._recipe["shots"]))
        body = request_body(self.model, self._recipe, self.schema, text, examples)
        reply = await self._shared.client.chat(body)
        with self.spent.unless_believed(reply.tokens):
            scores = check_reply(reply.content, reply.finish_reason, self.schema)
        return Answer(request, scores, reply.tokens)

    async def _embedded(self, text: str, tokens: int) -> NDArray[np.float32]:
        """The text's vector, and a permit for the chat that follows. `tokens`: reserved with the permit that `ask` was
        called with, which is for the embedding.

        Vectors are kept for a while: a chat that must be asked again does not pay for another one."""
        embedding, chat = self._shared.limiter.of(self.first_model), self._shared.limiter.of(self.model)
        if (known := self._vectors.get(text)) is not None:
            embedding.return_permit()
            await embedding.settle(tokens, 0)
            await chat.wait_for_permit(tokens, MAX_LIMIT_WAIT_S)
            return known
        data, used = await self._shared.client.embed(self.first_model, embedding_input([text]))
        assert self._pool is not None  # noqa: S101 - only with a pool
        self.spent.tokens += used
        if used:
            await embedding.settle(tokens, used)
        vector: NDArray[np.float32] = check_vectors(data, 1, self._pool.vectors.shape[1])[0]
        self._vectors[text] = vector
        if len(self._vectors) > _KEPT_VECTORS:
            self._vectors.popitem(last=False)
        await chat.wait_for_permit(tokens, MAX_LIMIT_WAIT_S)
        self.spent.requests += 1  # the chat's, from here on
        return vector
