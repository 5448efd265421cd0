"""Mistral's prices for a million tokens, and the cost computed from them.

Prices change, and differ between accounts: `LABELMILL_PRICES` overrides them. Estimates and costs that use them have
`prices_as_of`. Where Mistral reports a price itself (for a fine-tuning job), that price is used.

How far the table is sure, as of `PRICES_AS_OF`: Mistral's own page could not be read when it was made; several
catalogues that copy it agree on mistral-embed, ministral-3b and -8b, mistral-medium (3.5, and 3.1 by its dated ids) and
mistral-large (3). They do not agree on mistral-small: Small 4 is 0.15 and 0.60 in most, 0.10 and 0.30 (Small 3.2's) in
some, and the higher is kept. ministral-14b and codestral-embed stand in one only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from labelmill.contracts.documents.parts import Money

PRICES_AS_OF = "2026-06"
OVERRIDDEN = "LABELMILL_PRICES"  #: What `prices_as_of` says of a price that the setting names.
CURRENCY = "USD"


@dataclass(frozen=True, slots=True)
class Price:
    """USD for a million tokens. `output`: for the tokens that a chat model generates."""

    input: float
    output: float = 0.0


#: By a prefix of the model's id; the longest matching prefix applies.
PRICES: dict[str, Price] = {
    "mistral-embed": Price(0.10),
    "codestral-embed": Price(0.15),
    "ministral-3b": Price(0.10, 0.10),
    "ministral-8b": Price(0.15, 0.15),
    "ministral-14b": Price(0.20, 0.20),
    "mistral-small": Price(0.15, 0.60),
    "mistral-small-2506": Price(0.10, 0.30),
    "mistral-medium": Price(1.50, 7.50),
    "mistral-medium-2505": Price(0.40, 2.00),
    "mistral-medium-2508": Price(0.40, 2.00),
    "mistral-large": Price(0.50, 1.50),
    "mistral-large-2411": Price(2.00, 6.00),
}


@dataclass(frozen=True, slots=True)
class PriceList:
    """The prices above, and those of the setting `LABELMILL_PRICES` before them: model → input and output."""

    overrides: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def price_of(self, model: str) -> Price | None:
        """The price of a model by its id, None when it is not known here."""
        name = self._name(model)
        if name is None:
            return None
        return Price(*self.overrides[name]) if name in self.overrides else PRICES[name]

    def cost_of(self, model: str, input_tokens: int, output_tokens: int = 0) -> Money | None:
        """`{"amount", "currency"}` of so many tokens; None when the model's price is not known."""
        price = self.price_of(model)
        if price is None:
            return None
        amount = (input_tokens * price.input + output_tokens * price.output) / 1e6
        return {"amount": round(amount, 8), "currency": CURRENCY}

    def as_of(self, model: str) -> str:
        """When a model's price was looked up, or the name of the setting that overrides it."""
        return OVERRIDDEN if self._name(model) in self.overrides else PRICES_AS_OF

    def _name(self, model: str) -> str | None:
        fitting = [name for name in {**PRICES, **self.overrides} if model == name or model.startswith(f"{name}-")]
        own = [name for name in fitting if name in self.overrides]
        return max(own or fitting, key=len, default=None)


LISTED = PriceList()
