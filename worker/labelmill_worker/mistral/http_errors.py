"""From Mistral's HTTP error responses to Labelmill's errors, for the SDK and the thin client alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from labelmill.contracts.errors import (
    BillingRequired,
    CredentialsRefused,
    LabelmillError,
    MalformedAnswer,
    Permanent,
    RateLimited,
    RemoteFailed,
    RemoteUnavailable,
    RequestRefused,
)

_MAX_WAIT_S = 600.0  #: A Retry-After beyond this is not believed: we ask again then.
_MAX_BODY = 10_000  #: Characters of a body that are read.
MAX_WORDS = 500
_MAX_DEPTH = 8  #: Of the lists and objects around Mistral's sentence.


def error_for_status(
    status: int, body: str, retry_after: str | None = None, secrets: Sequence[str] = (), *, now: datetime | None = None
) -> LabelmillError:
    """The error for an HTTP answer that was none of the expected ones. Raises nothing, whatever the answer holds."""
    # secrets go before the words are cut, so that no part of one is left
    words = without_secrets(remote_words(without_secrets(body, secrets)), secrets)
    said = f": {words}" if words else ""
    if status in (401, 403):
        refused = f"Mistral refused the key in MISTRAL_API_KEY (status {status}){said}"
        return CredentialsRefused(refused, is_about_mistral=status == 401)
    if status == 402:
        return BillingRequired(f"Mistral asks for billing first (status 402){said}")
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
            retry_at = parsedate_to_datetime(header)
            if retry_at.tzinfo is None:
                retry_at = retry_at.replace(tzinfo=UTC)
            seconds = (retry_at - (now or datetime.now(UTC))).total_seconds()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(max(0.0, seconds), _MAX_WAIT_S)  # not a number counts as 0


def remote_words(body: str) -> str:
    """The sentence inside an error answer: `message`, `detail` or `error` of a JSON document, else its text."""
    body = body[:_MAX_BODY]
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        # An HTML page of some proxy says nothing to a reader.
        return "" if body.lstrip().startswith("<") else body.strip()[:MAX_WORDS]
    return sentence_of(document)[:MAX_WORDS]


def sentence_of(document: Any) -> str:
    """The sentence inside a JSON document, however deep that is; empty where there is none."""
    return _sentence(document, _MAX_DEPTH)


def refused_fields(body: str) -> frozenset[str]:
    """Which fields of a request the errors of a 422 name, without those inside them."""
    try:
        details = json.loads(body[:_MAX_BODY])["detail"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return frozenset()
    places = [detail.get("loc") for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []
    names = [[part for part in place if isinstance(part, str)] for place in places if isinstance(place, list)]
    return frozenset(name[1] for name in names if len(name) > 1)


def _sentence(document: Any, depth: int) -> str:
    if isinstance(document, str):
        return document
    if depth == 0:
        return ""
    if isinstance(document, list):
        return "; ".join(filter(None, (_sentence(entry, depth - 1) for entry in document)))
    if isinstance(document, dict):
        if isinstance(document.get("msg"), str):  # one entry of a validation error
            return ": ".join(filter(None, (_place(document.get("loc")), document["msg"])))
        for key in ("message", "detail", "error"):
            if document.get(key):
                return _sentence(document[key], depth - 1)
    return ""


def _place(loc: Any) -> str:
    """Where in the request the fault is: names and numbers."""
    parts = loc if isinstance(loc, list) else [loc]
    return ".".join(str(part) for part in parts if isinstance(part, str | int))


def without_secrets(text: str, secrets: Sequence[str]) -> str:
    """`text` with every secret in it redacted."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[secret]")
    return text
