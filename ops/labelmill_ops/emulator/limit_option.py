"""The limits of one model, as they are set on an emulator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelLimit:
    """None: no such limit, and no header. A limit of 0 refuses everything."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_month: int | None = None


def parse_limit(written: str) -> tuple[str, ModelLimit]:
    """`MODEL=REQUESTS[/TOKENS[/TOKENS_A_MONTH]]`, each a number or `-`. Raises ValueError with a sentence."""
    model, equals, numbers = written.rpartition("=")
    parts = [part.strip() for part in numbers.split("/")]
    if not equals or not model or len(parts) > 3 or not all(part == "-" or part.isdigit() for part in parts):
        message = f"{written!r} is not MODEL=REQUESTS[/TOKENS[/TOKENS_A_MONTH]], such as mistral-embed=60/1000000"
        raise ValueError(message)
    return model, ModelLimit(*(None if part == "-" else int(part) for part in parts))
