"""What a chat model said, from a reply of `/v1/chat/completions`. Pure."""

from __future__ import annotations

from typing import NamedTuple

from labelmill_worker.ports.inference import Reply


class ChatMessage(NamedTuple):
    """The first choice of a reply."""

    content: str  #: Empty when the model said nothing.
    finish_reason: str


def read_chat_reply(reply: Reply) -> ChatMessage:
    """The first choice; none counts as one that is empty, for its tokens are paid all the same."""
    try:
        choice = reply.document["choices"][0]
        content = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return ChatMessage("", "no choice")
    if isinstance(content, list):  # in chunks, of which only those of text are the answer
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        content = "".join(part for part in parts if isinstance(part, str))
    return ChatMessage(content if isinstance(content, str) else "", str(choice.get("finish_reason")))
