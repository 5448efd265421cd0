"""What holds work back that a worker has begun: the reasons, and how they are told."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

REDIS_SUBJECT = "redis"  #: What Redis holds back is held back in every batch.


class DelayReason(StrEnum):
    """Why the work of a worker does not move."""

    MISTRAL = "mistral_unreachable"  #: Time-outs, cut connections, 5xx.
    RATE_LIMIT = "rate_limit"  #: Ours, or a 429 of Mistral's.
    REDIS = "redis_unreachable"  #: It holds the messages and the shared rate limit.


_WORDS = {
    DelayReason.MISTRAL: "Mistral cannot be reached",
    DelayReason.RATE_LIMIT: "the rate limit has held requests back",
    DelayReason.REDIS: "Redis cannot be reached",
}


def model_subject(model_no: int) -> str:
    """How delays of a model's requests are named."""
    return f"model:{model_no}"


def told(reason: DelayReason, message: str, since: datetime) -> str:
    """`Mistral cannot be reached since 09:50 UTC: ConnectTimeout`. `since` is in UTC."""
    words = _WORDS[reason]
    more = message.removeprefix(words).removeprefix(": ")
    return f"{words} since {since:%H:%M} UTC" + (f": {more}" if more else "")
