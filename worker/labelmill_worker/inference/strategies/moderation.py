"""`/v1/moderations` with a list of texts, `/v1/chat/moderations` with one of chats. The categories are the labels."""

from __future__ import annotations

from typing import Any

from labelmill.contracts.chats import messages_of
from labelmill.contracts.errors import MalformedAnswer
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.moderation import MODERATION_TARGET
from labelmill_worker.inference.answers import check_scores, learn_schema, require_targets
from labelmill_worker.inference.outcomes import Answer
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies.list_classification import ListClassification
from labelmill_worker.inference.strategies.strategy import Vectors
from labelmill_worker.ports.inference import Call, Endpoint, Reply


class Moderation(ListClassification):
    """Asks a moderation model. Its one target has several labels, those of the first good answer."""

    def call(self, request: Request, vectors: Vectors | None) -> Call:
        del vectors
        return Call(Endpoint.MODERATIONS, {"model": self.model, "input": request.texts})

    def learn(self, request: Request, reply: Reply) -> LabelSchema:
        results = _results(reply)
        schema = learn_schema(results, (MODERATION_TARGET,))
        check_scores(results, len(request), schema)  # labels are learnt from a good answer only
        require_targets(schema, self._named)
        return schema

    def read(self, request: Request, reply: Reply, schema: LabelSchema) -> Answer:
        scores = check_scores(_results(reply), len(request), schema)
        return Answer(request, schema, self._at_temperatures(scores, schema), reply.tokens)


class ChatModeration(Moderation):
    """Asks it about chats: of each, what the last message is."""

    def call(self, request: Request, vectors: Vectors | None) -> Call:
        del vectors
        chats = [messages_of(text) for text in request.texts]
        return Call(Endpoint.CHAT_MODERATIONS, {"model": self.model, "input": chats})


def _results(reply: Reply) -> list[dict[str, Any]]:
    """The results as those of a classifier with one target."""
    results = reply.document.get("results")
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise MalformedAnswer("an answer holds no list of results")
    return [{MODERATION_TARGET: {"scores": result.get("category_scores")}} for result in results]
