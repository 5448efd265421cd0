"""The calls that carry texts, on pyreqwest and orjson: a twentieth of the SDK's CPU time a call.

A conformance test holds what this reads to what the SDK decodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.http import Url
from pyreqwest.proxy import ProxyBuilder
from pyreqwest.response import Response

from labelmill.contracts.errors import MalformedAnswer, RateLimited, RemoteUnavailable
from labelmill.core.settings import Settings
from labelmill_worker.mistral.client_config import (
    ClientConfig,
    read_client_config,
    unknown_authority,
    unwelcome_at_proxy,
)
from labelmill_worker.mistral.endpoint import usable_key, usable_url
from labelmill_worker.mistral.http_errors import error_for_status

_PATHS = ("/v1/classifications", "/v1/chat/classifications", "/v1/embeddings", "/v1/chat/completions")
_READ = 10_000  #: Bytes of a refusal that are read for Mistral's own words.
_MAX_TOKENS = 1_000_000_000  #: Of one answer: no model takes a hundredth of it, and sums of it fit the database.


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What a chat model said."""

    content: str  #: Empty when it said nothing.
    finish_reason: str
    tokens: int  #: Of question and answer, as Mistral reports them (0: not reported).


class HotClient:
    """Asks Mistral for classifications, vectors and chat answers. Belongs to one event loop.

    Every call raises CredentialsRefused, RequestRefused, RemoteFailed, RateLimited, RemoteUnavailable, MalformedAnswer.
    """

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float) -> None:
        """Raises WayUnusable when the environment names no usable way there."""
        base = base_url.rstrip("/")
        self._urls = {path: Url(base + path) for path in _PATHS}  # parsed once, not for every call
        self._key = api_key
        self._config = read_client_config(base, timeout_s)
        self._client: Client | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> HotClient:
        """Raises CredentialsRefused without a key, InvalidInput without an address."""
        return cls(usable_url(settings), usable_key(settings), timeout_s=settings.request_timeout_s)

    async def classify(self, model: str, texts: Sequence[str]) -> tuple[object, int]:
        """Classify texts. Returns the answer's `results`, unchecked, and the tokens Mistral reports (0: none)."""
        document = await self._post("/v1/classifications", {"model": model, "input": texts})
        return document.get("results"), _tokens(document)

    async def classify_chats(self, model: str, chats: Sequence[Sequence[dict[str, Any]]]) -> tuple[object, int]:
        """Classify chats, each a list of messages. Returns as `classify` does."""
        body = {"model": model, "input": [{"messages": messages} for messages in chats]}
        document = await self._post("/v1/chat/classifications", body)
        return document.get("results"), _tokens(document)

    async def embed(self, model: str, texts: Sequence[str]) -> tuple[object, int]:
        """Embed texts. Returns the answer's `data`, unchecked, and the tokens Mistral reports (0: none)."""
        document = await self._post("/v1/embeddings", {"model": model, "input": texts})
        return document.get("data"), _tokens(document)

    async def chat(self, body: dict[str, Any]) -> ChatReply:
        """Let a chat model answer; `body` is the request. Returns the first choice; none counts as one that is empty,
        for its tokens are paid all the same."""
        document = await self._post("/v1/chat/completions", body)
        tokens = _tokens(document)
        try:
            choice = document["choices"][0]
            content = choice["message"]["content"]
        except (KeyError, IndexError, TypeError):
            return ChatReply("", "no choice", tokens)
        if isinstance(content, list):  # in chunks, of which only those of text are the answer
            parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
            content = "".join(part for part in parts if isinstance(part, str))
        return ChatReply(content if isinstance(content, str) else "", str(choice.get("finish_reason")), tokens)

    async def close(self) -> None:
        """End the connections; calls under way raise RemoteUnavailable."""
        if self._client is not None:
            await self._client.close()

    def _opened(self) -> Client:
        if self._client is None:
            headers = {
                "Authorization": f"Bearer {self._key}",
                "Content-Type": "application/json",
                "Accept": "application/json",
            }
            self._client = _builder(self._config).default_headers(headers).build()
        return self._client

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            response = await self._opened().post(self._urls[path]).body_bytes(orjson.dumps(body)).build().send()
            payload = memoryview(await response.bytes())
        except TimeoutError as error:
            raise RemoteUnavailable(f"Mistral did not answer within {self._config.timeout_s:g} s") from error
        except (PyreqwestError, OSError) as error:
            cause = _cause(error)
            if "UnknownIssuer" in cause:
                raise unknown_authority(cause) from error
            if "proxy auth" in cause:
                raise unwelcome_at_proxy() from error
            raise RemoteUnavailable(f"Mistral cannot be reached: {cause}") from error
        if response.status != 200:
            said = bytes(payload[:_READ]).decode("utf-8", "replace")
            refusal = error_for_status(response.status, said, _retry_after(response), [self._key])
            if isinstance(refusal, RateLimited):
                refusal.model = str(body["model"])
            raise refusal
        try:
            document = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise MalformedAnswer("Mistral's answer is no JSON") from error
        if not isinstance(document, dict):
            raise MalformedAnswer("Mistral's answer is no JSON object")
        return document


def _builder(config: ClientConfig) -> ClientBuilder:
    builder = ClientBuilder().no_proxy()  # of those that it would read from the environment
    if config.proxy is not None:
        proxy = ProxyBuilder.all(config.proxy.url)
        if config.proxy.user is not None:
            proxy = proxy.basic_auth(config.proxy.user, config.proxy.password)
        builder = builder.proxy(proxy)
    for certificate in config.authorities.certificates:
        builder = builder.add_root_certificate_der(certificate)
    return (
        builder.user_agent(config.user_agent)
        .follow_redirects(enable=False)
        .connect_timeout(timedelta(seconds=config.connect_timeout_s))
        .timeout(timedelta(seconds=config.timeout_s))
        .pool_idle_timeout(timedelta(seconds=30))
    )


def _cause(error: Exception) -> str:
    """What is innermost, such as a certificate that nobody here knows; it names neither address nor key."""
    details = getattr(error, "details", None)
    causes = details.get("causes") if isinstance(details, dict) else None
    return str(causes[-1]["message"]) if causes else type(error).__name__


def _retry_after(response: Response) -> str | None:
    try:
        return response.get_header("Retry-After")
    except ValueError:  # bytes that are not text
        return None


def _tokens(document: dict[str, Any]) -> int:
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return 0
    tokens = usage.get("total_tokens")
    if tokens is None:
        parts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
        tokens = sum(part for part in parts if type(part) is int)
    return tokens if type(tokens) is int and 0 <= tokens <= _MAX_TOKENS else 0
