"""Prices by model, Labelmill's own and the user's."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.core.money.costs import cost_of_texts, priced_model
from labelmill.core.money.prices import PRICES_AS_OF, Price, PriceList
from labelmill.core.settings import Settings, load_settings
from labelmill.doctor.checks import Status
from labelmill.doctor.examination import check_prices


def test_an_undated_name_costs_what_the_model_costs_that_it_means() -> None:
    prices = PriceList()
    assert prices.price_of("mistral-medium-latest") == prices.price_of("mistral-medium-3-5") == Price(1.5, 7.5)
    assert prices.price_of("mistral-medium-2508") == Price(0.4, 2.0)
    assert prices.price_of("mistral-medium-2912") is None  # its successors may cost more
    assert prices.price_of("mistral-embedded") is None
    assert priced_model("ft:classifier:ministral-3b-latest:x:y") == "ministral-3b-latest"


def test_prices_of_the_environment_go_before_the_listed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELMILL_PRICES", '{"mistral-medium": [2, 8], "brand-new": [1, 3]}')
    prices = PriceList.of(load_settings())
    assert prices.price_of("mistral-medium-2508") == Price(2.0, 8.0)
    assert prices.cost_of("brand-new-latest", 1_000_000, 1_000_000) == {"amount": 4.0, "currency": "USD"}
    assert (prices.as_of("brand-new"), prices.as_of("mistral-embed")) == ("LABELMILL_PRICES", PRICES_AS_OF)
    schema = LabelSchema((Target("intent", ("a",)),))
    cost = cost_of_texts("brand-new", "embedding", 500_000, 10, schema, prices)
    assert cost == {"amount": 0.5, "currency": "USD"}


def test_an_override_of_a_dated_name_applies_to_the_undated_one() -> None:
    prices = PriceList({"mistral-medium-3-5": (3.0, 9.0)})
    assert prices.price_of("mistral-medium-latest") == Price(3.0, 9.0)
    assert prices.as_of("mistral-medium-latest") == "LABELMILL_PRICES"


def test_a_fine_tuned_model_costs_what_the_setting_says_of_its_own_id() -> None:
    prices = PriceList({"ft:classifier:ministral-3b-latest:x:y": (7.0, 0.0)})
    assert prices.price_of(priced_model("ft:classifier:ministral-3b-latest:x:y", prices)) == Price(7.0)
    assert priced_model("ft:classifier:ministral-3b-latest:x:z", prices) == "ministral-3b-latest"


def test_batch_halves_the_price_and_cached_tokens_cost_a_tenth_but_not_both() -> None:
    price = Price(1.0, 2.0)
    assert price.amount(1_000_000, 1_000_000) == 3.0
    assert price.amount(1_000_000, 0, 500_000) == pytest.approx(0.55)
    assert price.amount(1_000_000, 1_000_000, 500_000, mode="batch") == 1.5


def test_a_regional_host_costs_a_tenth_more_and_what_a_user_pays_is_as_the_user_says() -> None:
    settings = Settings(mistral_url="https://api.eu.mistral.ai", prices={"brand-new": (1.0, 3.0)})
    prices = PriceList.of(settings)
    listed = prices.price_of("mistral-embed")
    assert listed is not None
    assert listed.input == pytest.approx(0.11)
    assert prices.price_of("brand-new") == Price(1.0, 3.0)


def test_doctor_tells_when_the_price_list_is_old() -> None:
    as_of = date.fromisoformat(PRICES_AS_OF)
    assert check_prices(as_of + timedelta(days=90)).status is Status.OK
    old = check_prices(as_of + timedelta(days=91))
    assert (old.status, "91 days old" in old.summary) == (Status.WARNING, True)


@pytest.mark.parametrize("value", ['{"m": 1}', '{"m": [-1, 2]}', "nonsense"])
def test_a_price_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LABELMILL_PRICES", value)
    with pytest.raises(InvalidInput, match="setting LABELMILL_PRICES"):
        load_settings()
