"""Delays of work that a worker has begun: the reasons, and their wording."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

REDIS_SUBJECT = "redis"  #: A delay caused by Redis concerns every batch.


class DelayReason(StrEnum):
    """Why the work of a worker makes no progress."""

    MISTRAL = "mistral_unreachable"  #: Time-outs, cut connections, 5xx.
    RATE_LIMIT = "rate_limit"  #: Labelmill's own limit, or a 429 from Mistral.
    REDIS = "redis_unreachable"  #: It holds the messages and the shared rate limit.
    STORAGE = "storage_unreachable"  #: The bucket in which files lie.
    UNRESERVED = "unreserved_jobs"  #: Batch jobs that were made without a cap: what they cost is not known yet.


_WORDS = {
    DelayReason.MISTRAL: "Mistral cannot be reached",
    DelayReason.RATE_LIMIT: "the rate limit has held requests back",
    DelayReason.REDIS: "Redis cannot be reached",
    DelayReason.STORAGE: "the storage of files cannot be used",
    DelayReason.UNRESERVED: "the cap has allowed no batch job",
}

MODEL_PREFIX = "model:"


def model_subject(model_no: int) -> str:
    """How a model is named where its requests are held back, or a worker cannot ask it."""
    return f"{MODEL_PREFIX}{model_no}"


def describe_delay(reason: DelayReason, message: str, since: datetime) -> str:
    """`Mistral cannot be reached since 09:50 UTC: ConnectTimeout`. `since` is in UTC."""
    words = _WORDS[reason]
    detail = message.removeprefix(words).removeprefix(": ")
    return f"{words} since {since:%H:%M} UTC" + (f": {detail}" if detail else "")
