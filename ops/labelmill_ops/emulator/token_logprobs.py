"""The tokens of an answer with their log-probabilities, as `logprobs` and `top_logprobs` ask for them. Pure.

A token is some letters of the answer. Where a label stands, the tokens that other labels would have begun with are as
probable as those labels.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

_PIECE = re.compile(r".{1,4}", re.DOTALL)
_IMPOSSIBLE = -9999.0

Part = tuple[str, Mapping[str, float] | None]
"""A piece of an answer: text as it stands; or a label that was chosen, with label → probability."""


def content_of(parts: Iterable[Part]) -> str:
    """The text of an answer."""
    return "".join(text if shares is None else orjson.dumps(text).decode() for text, shares in parts)


def logprobs_of(parts: Iterable[Part], top: int) -> dict[str, Any]:
    """`logprobs` of a choice, with `top` alternatives a token."""
    entries: list[dict[str, Any]] = []
    for text, shares in parts:
        if shares is None:
            entries += [_entry(piece, 1.0) | {"top_logprobs": [_entry(piece, 1.0)][:top]} for piece in _pieces(text)]
        else:
            entries += _of_label(text, shares, top)
    return {"content": entries}


def _of_label(chosen: str, shares: Mapping[str, float], top: int) -> list[dict[str, Any]]:
    left = {tuple(_written(label)): share for label, share in shares.items()}
    entries = []
    for piece in _written(chosen):
        following: dict[str, float] = defaultdict(float)
        for pieces, share in left.items():
            following[pieces[0]] += share
        total = sum(following.values()) or 1.0
        ranked = sorted(following.items(), key=lambda one: (-one[1], one[0]))[:top]
        entry = _entry(piece, following[piece] / total)
        entries.append(entry | {"top_logprobs": [_entry(one, share / total) for one, share in ranked]})
        left = {pieces[1:]: share for pieces, share in left.items() if pieces[0] == piece and len(pieces) > 1}
    return entries


def _written(label: str) -> Sequence[str]:
    return _pieces(orjson.dumps(label).decode())


def _pieces(text: str) -> list[str]:
    return _PIECE.findall(text)


def _entry(token: str, probability: float) -> dict[str, Any]:
    logarithm = math.log(probability) if probability > 0 else _IMPOSSIBLE
    return {"token": token, "logprob": logarithm, "bytes": list(token.encode())}
