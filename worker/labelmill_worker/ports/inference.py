"""What the bulk engine needs of a model server: a call is sent, a reply comes back. Both are values, and JSON.

Strategies (`inference/strategies/`) make calls from rows and read replies; they know no adapter. `mistral/realtime.py`
is the adapter that sends one call and returns its reply. An adapter for jobs that take hours (Mistral's Batch API)
needs no other strategies: a line of its file is a custom id and a call's `body`, a job holds the calls of one
`endpoint`, and a line of the results is a custom id and a reply's `document`. Calls that need a vector first
(`Strategy.vector_call`) are a job of their own before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from labelmill.contracts.reported_limits import ReportedLimits
from labelmill.contracts.usage import Usage, reported_usage


class Endpoint(StrEnum):
    """The kinds of call that carry texts, each by its path."""

    CLASSIFICATIONS = "/v1/classifications"
    CHAT_CLASSIFICATIONS = "/v1/chat/classifications"
    EMBEDDINGS = "/v1/embeddings"
    CHAT_COMPLETIONS = "/v1/chat/completions"
    MODERATIONS = "/v1/moderations"
    CHAT_MODERATIONS = "/v1/chat/moderations"


Decode = Callable[[bytes | memoryview], Mapping[str, Any]]
"""From a reply's bytes to its document, for a strategy that knows a faster way. Raises orjson.JSONDecodeError."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request, not yet sent. `body` is JSON and names the model."""

    endpoint: Endpoint
    body: Mapping[str, Any]
    decode: Decode | None = field(default=None, compare=False)  #: None: the reply is decoded as any JSON.

    @property
    def model(self) -> str:
        """Whose limits the call counts against."""
        return str(self.body["model"])


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for a call that was not refused: a JSON object, of which nothing is checked."""

    document: Mapping[str, Any]
    limits: ReportedLimits | None = None  #: Of the model, as far as the server tells them.

    @property
    def tokens(self) -> int:
        """Of question and answer, as the server reports them (0: it does not, or not as a number)."""
        usage = reported_usage(self.document, "")
        return usage.input_tokens + usage.output_tokens if usage is not None else 0

    def usage(self, model: str, mode: str = "realtime") -> Usage | None:
        """What is to be paid for the call, as the server reports it. None: it does not."""
        return reported_usage(self.document, model, mode)


class Inference(Protocol):
    """A model server that answers a call while the caller waits. Belongs to one event loop."""

    async def send(self, call: Call) -> Reply:
        """Send a call once. Raises CredentialsRefused, RequestRefused, RemoteFailed, RateLimited, RemoteUnavailable,
        Unanswered, MalformedAnswer."""
        ...

    async def close(self) -> None:
        """End the connections; calls under way raise RemoteUnavailable."""
        ...
