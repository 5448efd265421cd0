"""What a batch is expected to cost, from the tokens of its texts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from labelmill.contracts.documents.parts import Estimate
from labelmill.contracts.label_schema import LabelSchema
from labelmill.core.money.costs import priced_model
from labelmill.core.money.prices import PriceList
from labelmill.core.money.token_counts import count_tokens


def estimate_of_texts(
    remote_model: str,
    recipe: Mapping[str, Any],
    schema: LabelSchema,
    prices: PriceList,
    *,
    texts: int,
    tokens: int,
    mode: str,
) -> Estimate | None:
    """For `texts` that have `tokens` together, asked in `mode`; None where the price is not known. With a prompt (a
    recipe with a `system` message) goes its text, its examples, and an answer of the longest labels."""
    price = prices.price_of(priced_model(remote_model, prices))
    if price is None:
        return None
    written = 0
    if "system" in recipe:
        mean = tokens // texts if texts else 0
        tokens += texts * _prompt_tokens(recipe, schema, mean)
        answer = {target.name: max(target.labels, key=len, default="") for target in schema.targets}
        written = texts * count_tokens(orjson.dumps(answer).decode())
    amount = price.amount(tokens, written, mode=mode)
    return {"amount": round(amount, 8), "currency": "USD", "texts": texts, "tokens": tokens + written}


def _prompt_tokens(recipe: Mapping[str, Any], schema: LabelSchema, mean_tokens: int) -> int:
    """Of the prompt that goes with a text, or its part of one for several texts."""
    tokens = count_tokens(recipe["system"])
    if "examples" in recipe:
        tokens += sum(count_tokens(example["text"]) for example in recipe["examples"])
    else:
        labels = sum(len(target.labels) for target in schema.targets)
        tokens += int(recipe.get("shots") or 0) * labels * mean_tokens  # the nearest ones are about as long as a text
    return int(tokens // max(1, int((recipe.get("numbered") or {}).get("texts") or 1)))
