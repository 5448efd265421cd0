"""`/v1/chat/completions` with a JSON schema whose enums are the labels: one text a request, or several with numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from labelmill.contracts.label_schema import LabelSchema
from labelmill_worker.inference.chat_replies import read_chat_reply
from labelmill_worker.inference.models.chat_options import prompt_cache_key
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.nearest_labels import longest_labels
from labelmill_worker.inference.models.numbered_prompt import (
    MAX_TEXT_TOKENS,
    WRAPPING_TOKENS,
    check_numbered_reply,
    numbered_recipe,
    numbered_request_body,
    texts_per_prompt,
)
from labelmill_worker.inference.models.prompt import (
    Example,
    answer_schema,
    check_reply,
    has_labels_of,
    instruction_tokens,
    prompt_tokens,
    request_body,
    system_message,
    usual_answer_tokens,
)
from labelmill_worker.inference.models.temperature import at_temperatures
from labelmill_worker.inference.models.token_probabilities import TOP_LOGPROBS, read_tokens
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.outcomes import Answer
from labelmill_worker.inference.planning import Request, plan_by_tokens
from labelmill_worker.inference.strategies.strategy import Strategy, Vectors
from labelmill_worker.inference.vectors import check_vectors, embedding_call
from labelmill_worker.ports.inference import Call, Endpoint, Reply


class ChatPrompt(Strategy):
    """Asks a chat model with the version's prompt. With a pool every text is embedded first, and the examples and the
    labels nearest to the texts of a request are shown.

    A request of one text, also one that is left of a bisected request, is asked with the prompt of one text.
    """

    def __init__(
        self,
        model: ModelVersion,
        pool: ExamplePool | None,
        temperatures: Mapping[str, float] | None = None,
        texts_per_prompt: int | None = None,
    ) -> None:
        """`temperatures`: those at which the batch is answered; `texts_per_prompt`: a trial's own."""
        self.model = model.remote_model
        self._recipe = model.recipe
        self._cache_key = prompt_cache_key(model)
        self._tells_probabilities = bool(self._recipe.get("logprobs"))  # the model's server does
        self._temperatures = temperatures or {}
        self._numbered = self._recipe.get("numbered")
        if texts_per_prompt is not None and self._numbered is not None:
            self._numbered = {**self._numbered, "texts": texts_per_prompt}
        self._candidates: int | None = self._recipe.get("candidates")
        self._pool = pool
        self.vector_model = str(self._recipe["embedding_model"]) if pool is not None else None
        self._examples: Sequence[Example] = self._recipe.get("examples") or ()
        self._schema = self.schema = model.schema or LabelSchema(())

    def plan(self, rows: Sequence[int], texts: Sequence[str]) -> Iterator[Request]:
        shown, recipe, numbered = self._examples, self._recipe, self._numbered
        if self._pool is not None and self._shows_nearest:
            shown = self._pool.rows[: len(self._pool.members) * int(recipe["shots"])]  # about as long as others
        if self._candidates is not None:
            count = self._candidates * (1 if numbered is None else int(numbered["texts"]))
            recipe, numbered = self._prompt_of(longest_labels(self._schema, recipe["descriptions"], count))
        if numbered is not None:
            answer = WRAPPING_TOKENS + usual_answer_tokens(self._schema)
            shared = instruction_tokens(numbered, shown)
            for request in plan_by_tokens(rows, texts, texts_per_prompt(numbered, self._schema), MAX_TEXT_TOKENS):
                yield Request(request.rows, request.texts, answer, shared)
            return
        overhead = prompt_tokens(recipe, self._schema, shown)
        for index in range(len(rows)):
            yield Request(rows[index : index + 1], texts[index : index + 1], overhead)

    @property
    def _shows_nearest(self) -> bool:
        return self._recipe.get("shot_selection", "nearest") == "nearest" and bool(self._recipe.get("shots"))

    def _prompt_of(self, schema: LabelSchema) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
        """The prompt of one text and that of several, with some of the labels."""
        descriptions = self._recipe["descriptions"]
        recipe = {"system": system_message(schema, descriptions), "answer_schema": answer_schema(schema)}
        if self._numbered is None:
            return recipe, None
        return recipe, numbered_recipe(schema, descriptions, int(self._numbered["texts"]))

    def vector_call(self, request: Request) -> Call | None:
        return embedding_call(self.vector_model, request.texts) if self.vector_model is not None else None

    def read_vectors(self, request: Request, reply: Reply) -> Vectors:
        assert self._pool is not None  # noqa: S101 - only with a pool there was such a call
        return check_vectors(reply.document.get("data"), len(request), self._pool.vectors.shape[1])

    def call(self, request: Request, vectors: Vectors | None) -> Call:
        examples, schema, recipe, numbered = self._examples, self._schema, self._recipe, self._numbered
        if self._pool is not None and vectors is not None:
            if self._shows_nearest:
                examples = self._pool.nearest(vectors, int(self._recipe["shots"]))
            if self._candidates is not None and self._pool.labels is not None:
                schema = self._pool.labels.among(vectors, self._candidates)
                recipe, numbered = self._prompt_of(schema)
                examples = [example for example in examples if has_labels_of(example, schema)]
        if numbered is not None and len(request) > 1:
            body = numbered_request_body(self.model, numbered, schema, request.texts, examples)
        else:
            body = request_body(self.model, recipe, schema, request.texts[0], examples)
        body["prompt_cache_key"] = self._cache_key
        if self._tells_probabilities:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        return Call(Endpoint.CHAT_COMPLETIONS, body)

    def read(self, request: Request, reply: Reply, schema: LabelSchema) -> Answer:
        content, finish_reason = read_chat_reply(reply)
        tokens = read_tokens(reply.document, content) if self._tells_probabilities else None
        if len(request) > 1:
            scores = check_numbered_reply(content, finish_reason, schema, len(request), tokens)
        else:
            scores = check_reply(content, finish_reason, schema, tokens)
        if self._temperatures:
            scores = at_temperatures(scores, schema, self._temperatures)
        return Answer(request, schema, scores, reply.tokens)
