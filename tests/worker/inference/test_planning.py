"""What a request is taken to need."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from labelmill_worker.inference.planning import MAX_REQUEST_CHARS, Request, plan_requests


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


@pytest.mark.parametrize("rows", [range(12, 15), [12, 13, 17]], ids=["all", "some"])
def test_a_request_picks_its_rows_out_of_a_chunks_columns(rows: Sequence[int]) -> None:
    request = Request(rows, ["a", "b", "c"])
    assert request.row_numbers.tolist() == list(rows)
    assert list(request.values_of([f"id {row}" for row in range(10, 20)], 10)) == [f"id {row}" for row in rows]


def test_a_request_ends_before_it_has_too_many_texts_or_characters() -> None:
    half = "x" * (MAX_REQUEST_CHARS // 2)
    texts = [*["short"] * 5, half, half, "y", half + half + "z", "last"]
    requests = list(plan_requests(range(10, 20), texts, 3))
    assert [list(request.rows) for request in requests] == [[10, 11, 12], [13, 14, 15], [16, 17], [18], [19]]
    assert [text for request in requests for text in request.texts] == texts
