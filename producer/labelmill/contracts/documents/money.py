"""What was spent."""

from __future__ import annotations

from typing_extensions import TypedDict

from labelmill.contracts.documents.parts import Number


class SpendRow(TypedDict):
    """What one job, model, day or month has cost. `tokens` are of input and output, `cached_tokens` a part of the
    input. `amount` is null where no price is known. `estimated`: tokens were counted here, because Mistral did not
    report all of them."""

    key: str
    requests: int
    tokens: int
    cached_tokens: int
    amount: Number | None
    estimated: bool


class SpentInCurrency(TypedDict):
    """What was spent in one currency; amounts in two currencies are never added."""

    currency: str
    total: Number
    rows: list[SpendRow]


class SpendDocument(SpentInCurrency):
    """What was spent, in the currency of the price list and in those that Mistral named for fine-tunings."""

    other_currencies: list[SpentInCurrency]
