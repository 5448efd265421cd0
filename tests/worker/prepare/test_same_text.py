"""Which texts count as one, and which do not."""

from __future__ import annotations

import unicodedata

import pytest

from labelmill_worker.prepare.same_text import digests_of, plain


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Play  MUSIC!", "play music"),
        ("don't stop", "Don\N{RIGHT SINGLE QUOTATION MARK}t stop..."),
        ("a\N{SOFT HYPHEN}b", "ab"),
        ("naïve Übung", unicodedata.normalize("NFD", "naïve Übung")),
        ("한국어", unicodedata.normalize("NFD", "한국어")),
        ("love \N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}", "love \N{HEAVY BLACK HEART}"),
        ("so good :)", "so good :-)"),
        ("«oui»", "oui"),
    ],
)
def test_texts_that_read_alike_are_the_same(one: str, other: str) -> None:
    assert plain(one) == plain(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("learn C++", "learn C#"),
        ("learn C", "learn C#"),
        ("great \N{THUMBS UP SIGN}", "great \N{THUMBS DOWN SIGN}"),
        ("great \N{THUMBS UP SIGN}", "great"),
        ("so good :)", "so good :("),
        ("50%", "50"),
        ("$5", "€5"),
        ("\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}", "\N{WOMAN}"),
        ("हिंदी", "हदी"),
        ("!!!", "???"),
        ("1.5", "15"),
    ],
)
def test_texts_that_say_something_else_are_not(one: str, other: str) -> None:
    assert plain(one) != plain(other)


def test_a_digest_is_of_the_plain_text() -> None:
    first, second, third = digests_of(["Hello, you", "hello YOU!", "hello"]).tolist()
    assert first == second != third
