"""The calls that carry texts, on aiohttp and orjson: a tenth of the SDK's CPU time a call.

A conformance test holds what this reads to what the SDK decodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import aiohttp
import orjson

from labelmill.contracts.errors import CredentialsRefused, MalformedAnswer, RemoteUnavailable
from labelmill.contracts.settings import Settings
from labelmill_worker.mistral.http_errors import error_for_status

_READ = 10_000  #: Bytes of a refusal that are read for Mistral's own words.


class HotClient:
    """Asks Mistral for classifications. Belongs to one event loop."""

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float) -> None:
        self._base_url = base_url.rstrip("/")
        self._key = api_key
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=min(10.0, timeout_s))
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> HotClient:
        """Raises CredentialsRefused without a key."""
        if settings.mistral_api_key is None:
            raise CredentialsRefused("no key for Mistral: set MISTRAL_API_KEY for the workers")
        return cls(
            settings.mistral_url, settings.mistral_api_key.get_secret_value(), timeout_s=settings.request_timeout_s
        )

    async def classify(self, model: str, texts: Sequence[str]) -> tuple[object, int]:
        """Classify texts. Returns the answer's `results`, unchecked, and the tokens Mistral reports (0: none).

        Raises CredentialsRefused, RequestRefused, RemoteFailed, RateLimited, RemoteUnavailable, MalformedAnswer.
        """
        document = await self._post("/v1/classifications", {"model": model, "input": texts})
        usage = document.get("usage")
        tokens = usage.get("total_tokens") if isinstance(usage, dict) else 0
        return document.get("results"), tokens if isinstance(tokens, int) else 0

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _post(self, path: str, body: object) -> dict[str, Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
                headers={
                    "Authorization": f"Bearer {self._key}",
                    "Content-Type": "application/json",
                    "Accept": "application/json",
                    "User-Agent": f"labelmill/{version('labelmill')}",
                },
                timeout=self._timeout,
            )
        try:
            async with self._session.post(self._base_url + path, data=orjson.dumps(body)) as response:
                payload = await response.read()
        except TimeoutError as error:
            raise RemoteUnavailable(f"Mistral did not answer within {self._timeout.total:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise RemoteUnavailable(f"Mistral cannot be reached: {type(error).__name__}") from error
        if response.status != 200:
            said = payload[:_READ].decode("utf-8", "replace")
            raise error_for_status(response.status, said, response.headers.get("Retry-After"), [self._key])
        try:
            document = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise MalformedAnswer("Mistral's answer is no JSON") from error
        if not isinstance(document, dict):
            raise MalformedAnswer("Mistral's answer is no JSON object")
        return document
