"""What calls of a model took, to be paid for: a value that goes from a reply to the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MAX_TOKENS = 1_000_000_000  #: Of one reply: no model takes a hundredth of it, and sums of it fit the database.


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call or of several with the same model and mode. `cached_tokens` are a part of the input."""

    model: str
    input_tokens: int
    output_tokens: int = 0
    cached_tokens: int = 0
    requests: int = 1
    is_estimated: bool = False  #: Counted here, because the server did not say.
    mode: str = "realtime"
    held: int = 0  #: What was reserved for it, in billionths of the currency.


def reported_usage(document: Mapping[str, Any], model: str, mode: str = "realtime") -> Usage | None:
    """What a reply says that it took; None: nothing, or not in numbers."""
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return None
    asked, written = _tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens"))
    total = _tokens(usage.get("total_tokens"))
    if asked is None:
        asked = max(0, (total or 0) - (written or 0))
    elif written is None:
        written = max(0, (total or 0) - asked)
    if not asked and not written:
        return None
    details = usage.get("prompt_tokens_details")
    cached = _tokens(details.get("cached_tokens")) if isinstance(details, dict) else None
    return Usage(model, asked, written or 0, min(cached or 0, asked), mode=mode)


def _tokens(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _MAX_TOKENS else None
