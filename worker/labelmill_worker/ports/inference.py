"""What the bulk engine needs of a model server: a call is sent, a reply comes back. Both are values, and JSON.

Strategies (`inference/strategies/`) make calls from rows and read replies; they know no adapter. `mistral/realtime.py`
is the adapter that sends one call and returns its reply. An adapter for jobs that take hours (Mistral's Batch API)
needs no other strategies: a line of its file is a custom id and a call's `body`, a job holds the calls of one
`endpoint`, and a line of the results is a custom id and a reply's `document`. Calls that need a vector first
(`Strategy.vector_call`) are a job of their own before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

_MAX_TOKENS = 1_000_000_000  #: Of one reply: no model takes a hundredth of it, and sums of it fit the database.


class Endpoint(StrEnum):
    """The kinds of call that carry texts, each by its path."""

    CLASSIFICATIONS = "/v1/classifications"
    CHAT_CLASSIFICATIONS = "/v1/chat/classifications"
    EMBEDDINGS = "/v1/embeddings"
    CHAT_COMPLETIONS = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Call:
    """A request, not yet sent. `body` is JSON and names the model."""

    endpoint: Endpoint
    body: Mapping[str, Any]

    @property
    def model(self) -> str:
        """Whose limits the call counts against."""
        return str(self.body["model"])


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for a call that was not refused: a JSON object, of which nothing is checked."""

    document: Mapping[str, Any]

    @property
    def tokens(self) -> int:
        """Of question and answer, as the server reports them (0: it does not, or not as a number)."""
        usage = self.document.get("usage")
        if not isinstance(usage, dict):
            return 0
        tokens = usage.get("total_tokens")
        if tokens is None:
            parts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
            tokens = sum(part for part in parts if type(part) is int)
        return tokens if type(tokens) is int and 0 <= tokens <= _MAX_TOKENS else 0


class Inference(Protocol):
    """A model server that answers a call while the caller waits. Belongs to one event loop."""

    async def send(self, call: Call) -> Reply:
        """Send a call once. Raises CredentialsRefused, RequestRefused, RemoteFailed, RateLimited, RemoteUnavailable,
        MalformedAnswer."""
        ...

    async def close(self) -> None:
        """End the connections; calls under way raise RemoteUnavailable."""
        ...
