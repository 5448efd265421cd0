"""`/v1/chat/completions`, to learn whether a model's server tells the log-probabilities of tokens: one short call.

The answer is a score, so that it is recorded as any answer is. A server that refuses the fields refuses the call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from labelmill.contracts.errors import MalformedAnswer
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_worker.inference.chat_replies import read_chat_reply
from labelmill_worker.inference.models.prompt import answer_schema, request_body, system_message
from labelmill_worker.inference.models.token_probabilities import TOP_LOGPROBS, read_tokens
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.outcomes import Answer
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies.strategy import Strategy, Vectors
from labelmill_worker.ports.inference import Call, Endpoint, Reply

CHECK_TEXT = "A coin was tossed."
CHECK_TOKENS = 200  #: Of question and answer, at most.
CHECK_SCHEMA = LabelSchema((Target("log-probabilities", ("told", "not told")),))

_ASKED = LabelSchema((Target("side", ("heads", "tails")),))
_PROMPT = {"system": system_message(_ASKED, {}), "answer_schema": answer_schema(_ASKED)}


class LogprobsCheck(Strategy):
    """Asks one question with two answers."""

    def __init__(self, model: ModelVersion) -> None:
        self.model = model.remote_model
        self.schema = CHECK_SCHEMA

    def plan(self, rows: Sequence[int], texts: Sequence[str]) -> Iterator[Request]:
        for index in range(len(rows)):
            yield Request(rows[index : index + 1], texts[index : index + 1], CHECK_TOKENS)

    def call(self, request: Request, vectors: Vectors | None) -> Call:
        del vectors
        body = request_body(self.model, _PROMPT, _ASKED, request.texts[0], [])
        return Call(Endpoint.CHAT_COMPLETIONS, body | {"logprobs": True, "top_logprobs": TOP_LOGPROBS})

    def read(self, request: Request, reply: Reply, schema: LabelSchema) -> Answer:
        content, _ = read_chat_reply(reply)
        if not content:
            raise MalformedAnswer("Mistral's answer holds no text")
        is_told = read_tokens(reply.document, content) is not None
        return Answer(request, schema, [np.array([[is_told, not is_told]], np.float32)], reply.tokens)
