"""A chat model that writes JSON token by token and tells the probability of each."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import orjson

Shares = Mapping[str, float]


def choice_of(answers: list[tuple[str, Any]], top: int = 5, size: int = 4) -> dict[str, Any]:
    """The choice of a reply. `answers`: what is written, in parts: text as it stands, with None, or a label's place
    with label → probability, of which the most probable one is written greedily, token by token. `size`: characters
    of a token."""
    content, entries = "", []
    for text, shares in answers:
        tokens = (
            _greedy(shares, size) if shares is not None else [(piece, {piece: 1.0}) for piece in _pieces(text, size)]
        )
        for token, alternatives in tokens:
            ranked = sorted(alternatives.items(), key=lambda one: -one[1])[:top]
            entries.append(_entry(token, alternatives[token]) | {"top_logprobs": [_entry(*one) for one in ranked]})
            content += token
    message = {"role": "assistant", "content": content}
    return {"index": 0, "finish_reason": "stop", "message": message, "logprobs": {"content": entries}}


def _greedy(shares: Shares, size: int) -> list[tuple[str, dict[str, float]]]:
    """The tokens of the answer, each with those that were possible."""
    left = {tuple(_pieces(orjson.dumps(label).decode(), size)): share for label, share in shares.items()}
    written: list[tuple[str, dict[str, float]]] = []
    while any(left):
        following: dict[str, float] = defaultdict(float)
        for pieces, share in left.items():
            following[pieces[0] if pieces else "\n"] += share
        total = sum(following.values())
        token = max(following, key=following.__getitem__)
        written.append((token, {one: share / total for one, share in following.items()}))
        left = {pieces[1:]: share for pieces, share in left.items() if pieces and pieces[0] == token}
    return written


def _pieces(text: str, size: int) -> list[str]:
    return re.findall(f".{{1,{size}}}", text, re.DOTALL)


def _entry(token: str, probability: float) -> dict[str, Any]:
    logarithm = math.log(probability) if probability else -9999.0
    return {"token": token, "logprob": logarithm, "bytes": list(token.encode())}
