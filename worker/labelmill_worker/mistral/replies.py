"""From the status and the body of an answer to a reply, or to the error that it stands for. Pure, for every adapter."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from labelmill.contracts.errors import MalformedAnswer, RateLimited
from labelmill.contracts.reported_limits import ReportedLimits
from labelmill_worker.mistral.http_errors import error_for_status
from labelmill_worker.ports.inference import Decode, Reply

_MAX_READ = 10_000  #: Bytes of a refusal that are read for Mistral's own words.


def read_reply(
    status: int,
    payload: bytes | memoryview,
    retry_after: str | None = None,
    secrets: Sequence[str] = (),
    limits: ReportedLimits | None = None,
    decode: Decode | None = None,
) -> Reply:
    """The reply to a call. Raises what the status stands for, and MalformedAnswer. `secrets` are left out of
    Mistral's words; `limits` are those that the answer's headers tell; `decode` is the call's."""
    if status != 200:
        said = bytes(payload[:_MAX_READ]).decode("utf-8", "replace")
        error = error_for_status(status, said, retry_after, secrets)
        if isinstance(error, RateLimited):
            error.limits = limits
        raise error
    try:
        document = (decode or orjson.loads)(payload)
    except orjson.JSONDecodeError as error:
        raise MalformedAnswer("Mistral's answer is not valid JSON") from error
    if not isinstance(document, dict):
        raise MalformedAnswer("Mistral's answer is not a JSON object")
    return Reply(document, limits)
