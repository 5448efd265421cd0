"""What a batch is expected to cost."""

from __future__ import annotations

from typing import Any

import pytest

from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.core.money.estimates import estimate_of_texts
from labelmill.core.money.prices import PriceList
from labelmill.core.money.token_counts import count_tokens

SCHEMA = LabelSchema((Target("intent", ("a", "a longer label")),))
PRICES = PriceList({"m": (1.0, 10.0)})
ANSWER = count_tokens('{"intent":"a longer label"}')


def estimate(recipe: dict[str, Any], mode: str = "realtime", model: str = "m") -> Any:
    return estimate_of_texts(model, recipe, SCHEMA, PRICES, texts=100, tokens=2_000, mode=mode)


def test_texts_cost_their_tokens_and_half_of_that_in_mode_batch() -> None:
    assert estimate({}) == {"amount": 0.002, "currency": "USD", "texts": 100, "tokens": 2_000}
    assert estimate({}, "batch")["amount"] == 0.001
    assert estimate({}, model="unknown") is None


def test_a_prompt_goes_with_every_text_or_its_part_of_one_for_several() -> None:
    system = "s" * 300
    prompt = count_tokens(system)
    alone = estimate({"system": system})
    assert alone["amount"] == pytest.approx((2_000 + 100 * prompt + 10 * 100 * ANSWER) / 1e6)
    assert alone["tokens"] == 2_000 + 100 * (prompt + ANSWER)
    together = estimate({"system": system, "numbered": {"texts": 10}})
    assert together["tokens"] == 2_000 + 100 * (prompt // 10 + ANSWER)
    nearest = estimate({"system": system, "shots": 2})
    assert nearest["tokens"] == alone["tokens"] + 100 * 2 * 2 * 20
