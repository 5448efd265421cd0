"""Prices by model, Labelmill's own and the user's."""

from __future__ import annotations

import pytest

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.core.money.costs import cost_of_texts, priced_model
from labelmill.core.money.prices import PRICES_AS_OF, Price, PriceList
from labelmill.core.settings import load_settings


def test_the_longest_beginning_of_an_id_counts() -> None:
    prices = PriceList()
    assert prices.price_of("mistral-medium-latest") == Price(1.5, 7.5)
    assert prices.price_of("mistral-medium-2508") == Price(0.4, 2.0)
    assert prices.price_of("mistral-embedded") is None
    assert priced_model("ft:classifier:ministral-3b-latest:x:y") == "ministral-3b-latest"


def test_prices_of_the_environment_go_before_the_listed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELMILL_PRICES", '{"mistral-medium": [2, 8], "brand-new": [1, 3]}')
    prices = PriceList(load_settings().prices)
    assert prices.price_of("mistral-medium-2508") == Price(2.0, 8.0)
    assert prices.cost_of("brand-new-latest", 1_000_000, 1_000_000) == {"amount": 4.0, "currency": "USD"}
    assert (prices.as_of("brand-new"), prices.as_of("mistral-embed")) == ("LABELMILL_PRICES", PRICES_AS_OF)
    schema = LabelSchema((Target("intent", ("a",)),))
    cost = cost_of_texts("brand-new", "embedding", 500_000, 10, schema, prices)
    assert cost == {"amount": 0.5, "currency": "USD"}


@pytest.mark.parametrize("value", ['{"m": 1}', '{"m": [-1, 2]}', "nonsense"])
def test_a_price_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LABELMILL_PRICES", value)
    with pytest.raises(InvalidInput, match="setting LABELMILL_PRICES"):
        load_settings()
