"""`/v1/chat/classifications` with a list of chats."""

from __future__ import annotations

from labelmill.contracts.chats import messages_of
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies.list_classification import ListClassification
from labelmill_worker.inference.strategies.strategy import Vectors
from labelmill_worker.ports.inference import Call, Endpoint


class ChatClassification(ListClassification):
    """Asks a classifier that was fine-tuned on chats. A text that is not a chat is sent as one message of a user."""

    def call(self, request: Request, vectors: Vectors | None) -> Call:
        del vectors
        chats = [{"messages": messages_of(text)} for text in request.texts]
        return Call(Endpoint.CHAT_CLASSIFICATIONS, {"model": self.model, "input": chats}, self._decode())
