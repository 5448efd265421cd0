"""Chats as texts: a batch carries a list of chat messages as its JSON. Pure."""

from __future__ import annotations

from typing import Any

import orjson


def is_chat(value: object) -> bool:
    """Whether a value is a list of messages, each with a `role` and a `content`."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(message, dict)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
            for message in value
        )
    )


def chat_as_text(messages: Any) -> str:
    """The text that stands for a chat: its JSON."""
    return orjson.dumps(messages).decode()


def messages_of(text: str) -> list[dict[str, Any]]:
    """The messages of a text that is a chat's JSON; any other text is one message with the role `user`."""
    if text.startswith("["):
        try:
            parsed = orjson.loads(text)
        except orjson.JSONDecodeError:
            parsed = None
        if is_chat(parsed):
            return [{"role": message["role"], "content": message["content"]} for message in parsed]
    return [{"role": "user", "content": text}]


def transcript(text: str) -> str:
    """A chat as plain text with a line for each message, for models that take a text; any other text unchanged."""
    if not text.startswith("["):
        return text
    messages = messages_of(text)
    if len(messages) == 1 and messages[0]["content"] == text:
        return text
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def text_of_row(row: dict[str, Any]) -> str:
    """The text of a prepared row, or what stands for its `messages`."""
    return str(row["text"]) if "text" in row else chat_as_text(row["messages"])
