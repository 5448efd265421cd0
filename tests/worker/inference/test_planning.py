"""What a request is taken to need."""

from __future__ import annotations

import pytest

from labelmill_worker.inference.planning import Request


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("word" * 10, 11), ("\u4f60\u597d" * 45, 91), ("\ud83d\ude00" * 3, 7), ("\U0001f600" * 3, 5)],
    ids=["ascii", "chinese", "surrogates", "emoji"],
)
def test_a_text_that_is_not_ascii_has_up_to_a_token_a_character(text: str, tokens: int) -> None:
    assert Request([0], [text]).tokens == tokens


def test_prompts_count_once_for_a_request_or_once_for_each_text() -> None:
    assert Request([0, 1], ["word", "word"], 10, 100).tokens == 2 + 2 * 11 + 100
    left, _ = Request([0, 1], ["word", "word"], 10, 100).halves()
    assert left.tokens == 1 + 11 + 100
