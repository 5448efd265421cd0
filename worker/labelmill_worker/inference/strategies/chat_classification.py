"""`/v1/chat/classifications` with a list of chats."""

from __future__ import annotations

from collections.abc import Sequence

from labelmill.contracts.chats import messages_of
from labelmill_worker.inference.strategies.list_classification import ListClassification


class ChatClassification(ListClassification):
    """Asks a classifier that was fine-tuned on chats. A text that is no chat is sent as one message of a user."""

    async def _call(self, model: str, texts: Sequence[str]) -> tuple[object, int]:
        return await self._shared.client.classify_chats(model, [messages_of(text) for text in texts])
