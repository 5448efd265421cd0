"""From what the SDK and httpx raise to Labelmill's errors, which answer one question: try again?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from mistralai.client.errors import MistralError, NoResponseError, ResponseValidationError

from labelmill.contracts.errors import (
    CredentialsRefused,
    InvalidInput,
    LabelmillError,
    MalformedAnswer,
    RateLimited,
    RemoteFailed,
    RemoteUnavailable,
    RequestRefused,
)

#: What `translate_error` understands; anything else is a fault of ours.
REMOTE_ERRORS = (MistralError, NoResponseError, httpx.HTTPError, httpx.InvalidURL, httpx.StreamError)

_MAX_WORDS = 1_000


def translate_error(error: Exception, secrets: Sequence[str] = ()) -> LabelmillError:
    """The error to raise in place of `error`. Mistral's own words are kept, `secrets` are taken out of them."""
    if isinstance(error, ResponseValidationError):
        return MalformedAnswer(f"Mistral's answer cannot be read (status {error.status_code})")
    if isinstance(error, MistralError):
        return error_for_status(error.status_code, error.body, error.headers.get("retry-after"), secrets)
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.InvalidURL)):
        return InvalidInput("LABELMILL_MISTRAL_URL is no http:// or https:// address")
    if isinstance(error, httpx.TimeoutException):
        return RemoteUnavailable(f"Mistral did not answer in time ({type(error).__name__})")
    return RemoteUnavailable(f"Mistral cannot be reached: {without_secrets(_words_of(error), secrets)}")


def error_for_status(
    status: int, body: str, retry_after: str | None = None, secrets: Sequence[str] = (), *, now: datetime | None = None
) -> LabelmillError:
    """The error for an HTTP answer that was none of the expected ones."""
    words = without_secrets(remote_words(body), secrets)
    said = f": {words}" if words else ""
    if status in (401, 403):
        return CredentialsRefused(f"Mistral refused the key in MISTRAL_API_KEY (status {status}){said}")
    if status in (404, 410):
        return RemoteFailed(f"Mistral knows no such thing (status {status}){said}")
    if status == 429:
        return RateLimited(f"Mistral asks for fewer requests{said}", retry_after_s(retry_after, now=now))
    if status in (408, 425) or status >= 500:
        return RemoteUnavailable(f"Mistral has trouble (status {status}){said}", retry_after_s(retry_after, now=now))
    if status >= 400:
        return RequestRefused(f"Mistral refused the request (status {status}){said}", status)
    return MalformedAnswer(f"Mistral's answer cannot be read (status {status})")


def retry_after_s(header: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds to wait by a Retry-After header, which holds seconds or an HTTP date. None: absent or unreadable."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = parsedate_to_datetime(header)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else None


def remote_words(body: str) -> str:
    """The sentence inside an error answer: `message`, `detail` or `error` of a JSON document, else its text."""
    try:
        document = json.loads(body)
    except ValueError:
        # An HTML page of some proxy says nothing to a reader.
        return "" if body.lstrip().startswith("<") else body.strip()[:_MAX_WORDS]
    return _sentence(document)[:_MAX_WORDS]


def _sentence(document: Any) -> str:
    if isinstance(document, str):
        return document
    if isinstance(document, list):
        return "; ".join(filter(None, map(_sentence, document)))
    if isinstance(document, dict):
        if isinstance(document.get("msg"), str):  # one entry of a validation error
            place = ".".join(str(part) for part in document.get("loc", ()))
            return f"{place}: {document['msg']}" if place else str(document["msg"])
        for key in ("message", "detail", "error"):
            if document.get(key):
                return _sentence(document[key])
    return ""


def without_secrets(text: str, secrets: Sequence[str]) -> str:
    """`text` with every secret in it blotted out."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[secret]")
    return text


def _words_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
