"""Every header about limits is optional, and none is trusted."""

from __future__ import annotations

import pytest

from labelmill.contracts.reported_limits import ReportedLimits
from labelmill_worker.mistral.limit_headers import read_limits

REQUESTS, REQUESTS_LEFT = "x-ratelimit-limit-req-minute", "x-ratelimit-remaining-req-minute"
TOKENS, TOKENS_LEFT = "x-ratelimit-limit-tokens-minute", "x-ratelimit-remaining-tokens-minute"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({REQUESTS: "60", REQUESTS_LEFT: "59"}, ReportedLimits(60, 59)),
        ({REQUESTS: "60"}, ReportedLimits(60)),
        ({TOKENS: "20000", TOKENS_LEFT: "0"}, ReportedLimits(None, None, 20_000, 0)),
        ({REQUESTS: "0", REQUESTS_LEFT: "0"}, ReportedLimits(0, 0)),
        ({REQUESTS: "0.4", REQUESTS_LEFT: "0"}, ReportedLimits(1, 0)),
        ({"x-ratelimit-limit-tokens-5-minute": "4"}, ReportedLimits(None, None, 1)),
        ({"x-ratelimit-limit-tokens-5-minute": "0"}, ReportedLimits(None, None, 0)),
        ({"ratelimitbysize-limit": "500", "ratelimitbysize-remaining": "400"}, ReportedLimits(None, None, 500, 400)),
        (
            {"x-ratelimitbysize-limit-minute": "500", "x-ratelimitbysize-remaining-minute": "400"},
            ReportedLimits(None, None, 500, 400),
        ),
        (
            {"x-ratelimit-limit-tokens-month": "900", "x-ratelimit-remaining-tokens-month": "7"},
            ReportedLimits(tokens_per_month=900, tokens_left_of_month=7),
        ),
        ({"x-ratelimit-remaining-tokens-month": "0"}, ReportedLimits(tokens_left_of_month=0)),
        (
            {"x-ratelimit-limit-tokens-5-minute": "1000", "x-ratelimit-remaining-tokens-5-minute": "150"},
            ReportedLimits(None, None, 200, 150),
        ),
        (
            {TOKENS: "400", TOKENS_LEFT: "10", "x-ratelimit-limit-tokens-5-minute": "5000"},
            ReportedLimits(None, None, 400, 10),
        ),
    ],
)
def test_limits_are_read_from_every_family_of_headers(headers: dict[str, str], expected: ReportedLimits | None) -> None:
    assert read_limits(headers.get) == expected


@pytest.mark.parametrize(
    "value", ["", "-1", "nan", "inf", "1e400", "many", "9" * 400, "10000000000000", "0x10", "\x00"]
)
def test_a_limit_that_cannot_be_one_is_as_good_as_none(value: str) -> None:
    assert read_limits({REQUESTS: value, REQUESTS_LEFT: "1"}.get) is None
    assert read_limits({REQUESTS: "60", REQUESTS_LEFT: value}.get) == ReportedLimits(60)


def test_more_left_than_the_limit_is_not_believed() -> None:
    assert read_limits({REQUESTS: "60", REQUESTS_LEFT: "61"}.get) == ReportedLimits(60)


def test_bytes_that_are_not_text_are_ignored() -> None:
    def header(name: str) -> str | None:
        raise ValueError(name)

    assert read_limits(header) is None


@pytest.mark.parametrize(
    ("limits", "tokens", "explains"),
    [
        (ReportedLimits(60, 0), 1, True),
        (ReportedLimits(60, 5), 1, False),
        (ReportedLimits(60, 5, 1000, 40), 50, True),
        (ReportedLimits(60, 5, 1000, 40), 30, False),
        (ReportedLimits(60), 1, False),
    ],
)
def test_a_refusal_is_explained_by_a_window_that_is_used_up(
    limits: ReportedLimits, tokens: int, explains: bool
) -> None:
    assert limits.explain_refusal(tokens) is explains
