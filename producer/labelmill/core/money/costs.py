"""The cost of classifying texts with a model, from the tokens that were counted. Pure."""

from __future__ import annotations

import orjson

from labelmill.contracts.documents.parts import Money
from labelmill.contracts.label_schema import LabelSchema
from labelmill.core.money.prices import LISTED, PriceList
from labelmill.core.money.token_counts import count_tokens


def priced_model(remote_model: str, prices: PriceList = LISTED) -> str:
    """The model whose price applies: of a fine-tuned one (`ft:classifier:ministral-3b-latest:…`) its own, where
    `LABELMILL_PRICES` names one, else that of its base model."""
    names = (remote_model, *remote_model.split(":"))
    return next((name for name in names if prices.price_of(name)), remote_model)


def cost_of_texts(
    remote_model: str, method: str, tokens: int, texts: int, schema: LabelSchema, prices: PriceList = LISTED
) -> Money | None:
    """`{"amount", "currency"}` of `texts` that took `tokens` in all; None when the price is not known.

    A chat model's output tokens cost more, and only the sum is known: each answer is assumed to have the longest
    label.
    """
    output = 0
    if method == "prompt":
        answer = {target.name: max(target.labels, key=len, default="") for target in schema.targets}
        output = min(tokens, texts * count_tokens(orjson.dumps(answer).decode()))
    return prices.cost_of(priced_model(remote_model, prices), tokens - output, output)


def per_1000(cost: Money | None, texts: int) -> Money | None:
    """The same for 1,000 texts."""
    if cost is None or not texts:
        return None
    return {"amount": round(cost["amount"] * 1000 / texts, 8), "currency": cost["currency"]}
