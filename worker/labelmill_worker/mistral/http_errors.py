"""What an HTTP answer of Mistral's stands for, whoever asked: the SDK or the thin client."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

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

_LONGEST_WAIT_S = 600.0  #: A Retry-After beyond this is not believed: we ask again then.
_MAX_WORDS = 500


def error_for_status(
    status: int, body: str, retry_after: str | None = None, secrets: Sequence[str] = (), *, now: datetime | None = None
) -> LabelmillError:
    """The error for an HTTP answer that was none of the expected ones."""
    # secrets go before the words are cut, so that no part of one is left
    words = without_secrets(remote_words(without_secrets(body, secrets)), secrets).replace(
        "\x00", ""
    )  # PostgreSQL keeps no NUL
    said = f": {words}" if words else ""
    if status in (401, 403):
        return CredentialsRefused(f"Mistral refused the key in MISTRAL_API_KEY (status {status}){said}")
    if status in (404, 410):
        return RemoteFailed(f"Mistral knows no such thing (status {status}){said}")
    if status == 429:
        return RateLimited(f"Mistral asks for fewer requests{said}", retry_after_s(retry_after, now=now))
    if status in (408, 409, 425) or status >= 500:
        return RemoteUnavailable(f"Mistral has trouble (status {status}){said}", retry_after_s(retry_after, now=now))
    if status in (400, 413, 422):
        return RequestRefused(f"Mistral refused the request (status {status}){said}", status)
    if status >= 400:
        return Permanent(f"Mistral refused (status {status}){said}")
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
        except (ValueError, TypeError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    return min(max(0.0, seconds), _LONGEST_WAIT_S)  # not a number counts as 0


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
