"""Amounts of money have four digits that count and no exponent, wherever people read them."""

from __future__ import annotations

import pytest

from labelmill.cli.figures import money
from labelmill.cli.tables import at_a_glance
from labelmill.contracts.amounts import written
from labelmill.notebook import _words
from labelmill.report.parts import money as money_on_a_page


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0.0000016, "0.0000016"),
        (0.00819999, "0.0082"),
        (0, "0"),
        (1.5, "1.5"),
        (1e-9, "0.000000001"),
        (12345.6, "12350"),
    ],
)
def test_an_amount_is_written_without_an_exponent(amount: float, text: str) -> None:
    assert written(amount) == text
    cost = {"amount": amount, "currency": "USD"}
    assert money(cost) == money_on_a_page(cost) == at_a_glance(cost) == _words(cost) == f"{text} USD"
    assert _words(cost | {"estimated": True}) == f"about {text} USD"
