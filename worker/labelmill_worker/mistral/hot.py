"""The calls that carry texts, on aiohttp and orjson: a tenth of the SDK's CPU time a call.

A conformance test holds what this reads to what the SDK decodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any

import aiohttp
import orjson

from labelmill.contracts.errors import (
    CredentialsRefused,
    LabelmillError,
    MalformedAnswer,
    Permanent,
    RateLimited,
    RemoteFailed,
    RemoteUnavailable,
    RequestRefused,
)
from labelmill.contracts.settings import Settings
from labelmill.contracts.tables import utc_now

_LONGEST_WAIT_S = 600.0  #: A Retry-After beyond this is not believed: we ask again then.
_SHOWN = 300  #: Characters of Mistral's own words in an error.


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
            raise refusal(response.status, payload, response.headers.get("Retry-After"), self._key)
        try:
            document = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise MalformedAnswer("Mistral's answer is no JSON") from error
        if not isinstance(document, dict):
            raise MalformedAnswer("Mistral's answer is no JSON object")
        return document


def refusal(status: int, payload: bytes, retry_after: str | None, key: str) -> LabelmillError:
    """The error that an HTTP status stands for, with Mistral's own words and never the key."""
    words = _words(payload, key)
    if status in (401, 403):
        return CredentialsRefused(f"Mistral refused the key ({status}): {words}")
    if status in (400, 413, 422):
        return RequestRefused(f"Mistral refused the request ({status}): {words}", status)
    if status == 404:
        return RemoteFailed(f"Mistral knows no such model (404): {words}")
    if status == 429:
        return RateLimited(f"Mistral asks to slow down (429): {words}", retry_after_s(retry_after))
    if status >= 500 or status in (408, 409, 425):
        return RemoteUnavailable(f"Mistral is out of order ({status}): {words}", retry_after_s(retry_after))
    return Permanent(f"Mistral answered {status}: {words}")


def retry_after_s(header: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date; None when there is none."""
    if not header:
        return None
    try:
        return min(max(0.0, float(header)), _LONGEST_WAIT_S)
    except ValueError:
        pass
    try:
        wait_s = (parsedate_to_datetime(header) - utc_now()).total_seconds()
        return min(max(0.0, wait_s), _LONGEST_WAIT_S)
    except (ValueError, TypeError):
        return None


def _words(payload: bytes, key: str) -> str:
    """What a body says: the usual fields of an error document, or its beginning."""
    text = payload[:4000].decode("utf-8", "replace")
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        document = None
    if isinstance(document, dict):
        found = document.get("message") or document.get("detail") or document.get("error") or text
        text = found if isinstance(found, str) else orjson.dumps(found).decode()
    text = text.replace("\x00", "")  # PostgreSQL keeps none
    if key:
        text = text.replace(key, "[key]")  # before it is cut, so that no part of the key is left
    return " ".join(text.split())[:_SHOWN]
