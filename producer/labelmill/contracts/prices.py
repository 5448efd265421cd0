"""What Mistral asks for a million tokens, and what a job would cost by it.

Prices change: estimates and costs made of them say so by `PRICES_AS_OF`. Where Mistral names a price itself (a
fine-tuning job's), that one is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PRICES_AS_OF = "2026-06"  #: From https://mistral.ai/pricing
CURRENCY = "USD"


@dataclass(frozen=True, slots=True)
class Price:
    """USD for a million tokens. `output` is what a chat model asks for the tokens it writes."""

    input: float
    output: float = 0.0


#: By the beginning of a model's id; the longest that fits counts.
PRICES: dict[str, Price] = {
    "mistral-embed": Price(0.10),
    "codestral-embed": Price(0.15),
    "ministral-3b": Price(0.10, 0.10),
    "ministral-8b": Price(0.15, 0.15),
    "ministral-14b": Price(0.20, 0.20),
    "mistral-small": Price(0.10, 0.30),
    "mistral-medium": Price(0.40, 2.00),
    "mistral-large": Price(0.50, 1.50),
}


def price_of(model: str) -> Price | None:
    """The price of a model by its id, None when it is not known here."""
    fitting = [name for name in PRICES if model == name or model.startswith(f"{name}-")]
    return PRICES[max(fitting, key=len)] if fitting else None


def cost_of(model: str, input_tokens: int, output_tokens: int = 0) -> dict[str, Any] | None:
    """`{"amount", "currency"}` of so many tokens; None when the model's price is not known."""
    price = price_of(model)
    if price is None:
        return None
    amount = (input_tokens * price.input + output_tokens * price.output) / 1e6
    return {"amount": round(amount, 8), "currency": CURRENCY}
