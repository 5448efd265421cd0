"""What was spent."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

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


class CostRange(TypedDict):
    """What a job costs at least and at most."""

    min: Number
    max: Number
    currency: str


class QuoteOption(TypedDict):
    """One way to do a job. `output_tokens` are the least and the most. `tokens_by`: `tokenizer`, Mistral's own, or
    `estimate`. `cost` is null where no price is known, `seconds` where no limit is known. `example` is one of the
    requests, as it would be sent; null: none is."""

    mode: NotRequired[str]
    method: NotRequired[str]
    requests: int
    input_tokens: int
    output_tokens: list[int]
    tokens_by: Literal["tokenizer", "estimate"]
    cost: CostRange | None
    seconds: float | None
    example: dict[str, Any] | None


class QuoteDocument(TypedDict):
    """What a job would cost. `texts`: distinct ones that would be sent; `too_long`: those that are not counted, because
    the model takes no text of so many tokens; `refused`: those that a training leaves out, because Mistral has refused
    them before."""

    kind: str
    model: str
    rows: int
    texts: int
    too_long: int
    refused: int
    options: list[QuoteOption]
