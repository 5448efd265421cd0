"""Mistral's prices for a million tokens, and the cost computed from them.

`prices.json` is the list: by the dated name of a model, with what each undated name meant at that date, because
Mistral moves those to other models at other prices. The setting `LABELMILL_PRICES` goes before the list. A price is
known for the names in the list and no others: a newer model may cost more than its predecessor.

What the list is made of: Mistral's documentation of the date in it, compared with public catalogues. Less sure are
mistral-large-4, which stands in catalogues alone, and the ministral models of 2410, which are retired and have the
price of their successors: classifiers that were fine-tuned from them have no published price.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from labelmill.contracts.documents.parts import Money

if TYPE_CHECKING:
    from labelmill.core.settings import Settings

_FILE: Final[dict[str, Any]] = json.loads(Path(__file__).with_name("prices.json").read_text(encoding="utf-8"))
_MODELS: Final[dict[str, dict[str, float]]] = _FILE["models"]
_ALIASES: Final[dict[str, str]] = _FILE["aliases"]
_BATCH_FACTOR: Final[float] = _FILE["batch_factor"]
_CACHED_FACTOR: Final[float] = _FILE["cached_factor"]

PRICES_AS_OF: Final[str] = _FILE["as_of"]
OVERRIDDEN = "LABELMILL_PRICES"  #: What `prices_as_of` says of a price that the setting names.
CURRENCY: Final[str] = _FILE["currency"]
MAX_AGE_DAYS = 90  #: Prices that are older should be compared with Mistral's page.
BATCH = "batch"  #: The mode that costs less.


@dataclass(frozen=True, slots=True)
class Price:
    """USD for a million tokens. `output`: for the tokens that a chat model generates."""

    input: float
    output: float = 0.0

    def amount(self, input_tokens: int, output_tokens: int = 0, cached_tokens: int = 0, *, mode: str = "") -> float:
        """USD for so many tokens. `cached_tokens`: of the input, those that Mistral had kept from an earlier request;
        in mode `batch` they cost as the others do, because no document says that both discounts apply."""
        if mode == BATCH:
            return (input_tokens * self.input + output_tokens * self.output) * _BATCH_FACTOR / 1e6
        paid = input_tokens - cached_tokens * (1 - _CACHED_FACTOR)
        return (paid * self.input + output_tokens * self.output) / 1e6


@dataclass(frozen=True, slots=True)
class PriceList:
    """The listed prices, and those of the setting `LABELMILL_PRICES` before them: model → input and output.

    An override applies to its model, to undated names that mean it, and to ids that begin with it and a hyphen.
    `factor`: of listed prices, for a host of Mistral's that costs more.
    """

    overrides: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    factor: float = 1.0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The prices that these settings stand for."""
        is_regional = urlsplit(settings.mistral_url).hostname in _FILE["regional_hosts"]
        return cls(settings.prices, _FILE["regional_factor"] if is_regional else 1.0)

    def price_of(self, model: str) -> Price | None:
        """The price of a model by its id, None when it is not known here."""
        if (override := self._override(model)) is not None:
            return Price(*self.overrides[override])
        listed = _MODELS.get(_ALIASES.get(model, model))
        return Price(listed["input"] * self.factor, listed["output"] * self.factor) if listed else None

    def cost_of(self, model: str, input_tokens: int, output_tokens: int = 0, *, mode: str = "") -> Money | None:
        """`{"amount", "currency"}` of so many tokens; None when the model's price is not known."""
        price = self.price_of(model)
        if price is None:
            return None
        return {"amount": round(price.amount(input_tokens, output_tokens, mode=mode), 8), "currency": CURRENCY}

    def as_of(self, model: str) -> str:
        """When a model's price was looked up, or the name of the setting that overrides it."""
        return OVERRIDDEN if self._override(model) is not None else PRICES_AS_OF

    def _override(self, model: str) -> str | None:
        for name in (model, _ALIASES.get(model, model)):
            fitting = [own for own in self.overrides if name == own or name.startswith(f"{own}-")]
            if fitting:
                return max(fitting, key=len)
        return None


def listed_names(model: str) -> set[str]:
    """A model's names at the date of the list, the given one among them."""
    meant = _ALIASES.get(model, model)
    return {model, meant, *(alias for alias, dated in _ALIASES.items() if dated == meant)}


def age_days(today: date) -> int:
    """How old the list is."""
    return (today - date.fromisoformat(PRICES_AS_OF)).days


LISTED = PriceList()
