"""From what the SDK and httpx2 raise to Labelmill's errors, which answer one question: try again?"""

from __future__ import annotations

from collections.abc import Sequence

import httpx2
from mistralai.client.errors import MistralError, NoResponseError, ResponseValidationError

from labelmill.contracts.errors import InvalidInput, LabelmillError, MalformedAnswer, Refusal, RemoteUnavailable
from labelmill_worker.mistral.client_config import proxy_refuses_credentials, unknown_authority
from labelmill_worker.mistral.http_errors import error_for_status, refused_fields, without_secrets

#: What `translate_error` understands; anything else is a fault of ours.
REMOTE_ERRORS = (MistralError, NoResponseError, httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError)

_UNKNOWN_AUTHORITY = ("issuer certificate", "self-signed certificate", "self signed certificate")  #: OpenSSL's words.


def translate_error(error: Exception, secrets: Sequence[str] = ()) -> LabelmillError:
    """The error to raise in place of `error`. Mistral's own words are kept, `secrets` are taken out of them."""
    if isinstance(error, ResponseValidationError):
        return MalformedAnswer(f"Mistral's answer cannot be read (status {error.status_code})")
    if isinstance(error, MistralError):
        translated = error_for_status(error.status_code, error.body, error.headers.get("retry-after"), secrets)
        translated.refusal = Refusal(error.status_code, refused_fields(error.body), "invalid_model" in error.body)
        return translated
    if isinstance(error, (httpx2.UnsupportedProtocol, httpx2.InvalidURL)):
        return InvalidInput("LABELMILL_MISTRAL_URL is not an http:// or https:// address")
    if isinstance(error, httpx2.TimeoutException):
        return RemoteUnavailable(f"Mistral did not answer in time ({type(error).__name__})")
    words = _words_of(error)
    if isinstance(error, httpx2.ConnectError) and any(sign in words for sign in _UNKNOWN_AUTHORITY):
        return unknown_authority(words)
    if isinstance(error, httpx2.ProxyError) and "407" in words:
        return proxy_refuses_credentials()
    return RemoteUnavailable(f"Mistral cannot be reached: {without_secrets(words, secrets)}")


def _words_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
