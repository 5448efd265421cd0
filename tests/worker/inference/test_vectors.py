"""Answers of `/v1/embeddings` are checked before they are believed, and requests keep within Mistral's limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from labelmill.contracts.errors import MalformedAnswer
from labelmill.core.money.token_counts import count_tokens
from labelmill_worker.inference.vectors import (
    MAX_REQUEST_TEXTS,
    MAX_REQUEST_TOKENS,
    check_vectors,
    embedding_input,
    plan_embedding,
)


def entries(*vectors: Any) -> list[dict[str, Any]]:
    return [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]


def test_vectors_in_any_order_are_put_to_their_texts() -> None:
    data = entries([1.0, 2.0], [3, 4], [5.0, 6.0])
    assert check_vectors([data[2], data[0], data[1]], 3, 2).tolist() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize(
    "data",
    [
        None,
        entries([1.0, 2.0]),
        entries([1.0, 2.0], [1.0, 2.0], [1.0, 2.0]),
        [*entries([1.0, 2.0]), {"index": 0, "embedding": [1.0, 2.0]}],
        [*entries([1.0, 2.0]), {"index": 7, "embedding": [1.0, 2.0]}],
        [*entries([1.0, 2.0]), {"index": True, "embedding": [1.0, 2.0]}],
        [*entries([1.0, 2.0]), {"embedding": [1.0, 2.0]}],
        entries([1.0, 2.0], [1.0]),
        entries([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        entries([1.0, 2.0], [1.0, None]),
        entries([1.0, 2.0], ["1.0", "2.0"]),
        entries([1.0, 2.0], [1.0, float("nan")]),
        entries([1.0, 2.0], [1.0, 1e300]),
        entries([1.0, 2.0], 3.0),
        entries([], []),
    ],
)
def test_what_is_no_vector_for_each_text_counts_as_malformed(data: Any) -> None:
    with pytest.raises(MalformedAnswer):
        check_vectors(data, 2, 2)


def test_requests_keep_within_the_tokens_and_texts_that_mistral_takes() -> None:
    texts = ["word " * (40 * (number % 30)) + "end" for number in range(400)] + ["x" * 60_000]
    requests = list(plan_embedding(range(len(texts)), texts, 10_000))
    assert [row for request in requests for row in request.rows] == list(range(len(texts)))
    for request in requests[:-1]:
        assert sum(map(count_tokens, request.texts)) <= MAX_REQUEST_TOKENS
        assert len(request) <= MAX_REQUEST_TEXTS
    assert len(requests[-1]) == 1


def test_short_texts_fill_their_requests() -> None:
    assert [len(one) for one in plan_embedding(range(250), ["a short text"] * 250, 100)] == [100, 100, 50]


def test_no_text_is_counted_at_fewer_tokens_than_characters_of_its_script_make() -> None:
    assert count_tokens("人工智能正在改变世界") >= 10
    assert count_tokens("The quick brown fox jumps over the lazy dog") >= 10
    assert count_tokens("") >= 1


def test_a_chat_is_embedded_as_its_transcript() -> None:
    chat = '[{"role":"user","content":"hello"},{"role":"assistant","content":"good day"}]'
    assert embedding_input([chat, "[not a chat]", "plain"]) == [
        "user: hello\nassistant: good day",
        "[not a chat]",
        "plain",
    ]
    assert np.array(embedding_input(['[{"role": 1}]'])).tolist() == ['[{"role": 1}]']
