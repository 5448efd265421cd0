"""How probable each label of a target was where a chat model wrote one: from the probabilities of tokens. Pure.

The tokens of the written label are walked one by one. At each, the other tokens that were likely stand for the labels
that would have begun so; what the server does not tell of is shared by the labels that none of its tokens begins. What
cannot begin a label is left out, and so is another way to begin the written one: the shares that are left sum to 1.

The written label is the answer. Although each of its tokens was the likeliest, another label may have a larger share:
it counts as almost as probable as the written one, no more.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from labelmill_worker.inference.models.token_probabilities import AnswerTokens, Token

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()
_ALMOST = 1 - 1e-5  #: Of the written label's share: it stays the highest as float32 and at any usual temperature.


@dataclass(frozen=True, slots=True)
class Placed:
    """A string of an answer, and the character at which its quotation mark stands."""

    text: str
    at: int


def placed_strings(content: str, at: int = 0) -> Any:
    """The JSON that stands in `content` at a character, with each string as a `Placed`. The JSON was found to be good
    before: what is not raises ValueError or IndexError."""
    return _placed(content, at)[0]


def _placed(content: str, at: int) -> tuple[Any, int]:
    at = _behind_space(content, at)
    if content[at] == "{":
        members: dict[str, Any] = {}
        at = _behind_space(content, at + 1)
        while content[at] != "}":
            key, at = _DECODER.raw_decode(content, _behind_space(content, at + (content[at] == ",")))
            members[key], at = _placed(content, _behind_space(content, at) + 1)
            at = _behind_space(content, at)
        return members, at + 1
    if content[at] == "[":
        entries: list[Any] = []
        at = _behind_space(content, at + 1)
        while content[at] != "]":
            entry, at = _placed(content, at + (content[at] == ","))
            entries.append(entry)
            at = _behind_space(content, at)
        return entries, at + 1
    value, end = _DECODER.raw_decode(content, at)
    return (Placed(value, at) if isinstance(value, str) else value), end


def _behind_space(content: str, at: int) -> int:
    found = _SPACE.match(content, at)
    return found.end() if found else at


class LabelProbabilities:
    """Of the labels of one target. `scores_at` takes the byte of an answer at which a label's quotation mark stands."""

    def __init__(self, labels: Sequence[str]) -> None:
        written = [orjson.dumps(label) for label in labels]
        self._order = sorted(range(len(labels)), key=written.__getitem__)
        self._sorted = [written[number] for number in self._order]

    def scores_at(self, answer: AnswerTokens, at: int, written: int) -> NDArray[np.float32] | None:
        """Float32 (1, labels), in their order, of which that of the label `written` is the highest. None: the tokens do
        not say."""
        try:
            shares = self._shares_at(answer, at)
        except ValueError:
            return None
        if shares is None or not (total := shares.sum()) > 0:
            return None
        of_labels = np.empty(len(shares))
        of_labels[self._order] = shares / total
        highest = of_labels[written]
        if not highest > 0:
            return None  # they are those of another label
        others: NDArray[np.float64] = np.minimum(of_labels, highest * _ALMOST)
        others[written] = highest
        return np.asarray([others / others.sum()], np.float32)

    def _shares_at(self, answer: AnswerTokens, at: int) -> NDArray[np.float64] | None:
        shares = np.zeros(len(self._sorted))
        said, path = b"", 1.0
        index = answer.index_at(at)
        before = answer.data[index][: max(0, at - answer.starts[index])]  # of the first token, what is not the label's
        for token in answer.from_byte(at):
            begun = said + token.data[len(before) :]
            first, end = self._beginning_with(begun)
            if first == end:
                return None  # written in another way than the schema's
            self._share(shares, path, said, before, token, (first, end))
            path *= token.probability
            if end - first == 1:
                shares[first] += path
                return shares
            said, before = begun, b""
        return None

    def _share(
        self,
        shares: NDArray[np.float64],
        path: float,
        said: bytes,
        before: bytes,
        token: Token,
        chosen: tuple[int, int],
    ) -> None:
        """Give the labels what the token leaves of `path`, the probability of all that was `said` before it. `chosen`:
        the labels that begin as the token goes on."""
        untold, least = 1.0 - token.probability, token.probability
        known = [chosen]
        for data, probability in token.others:
            untold, least = untold - probability, min(least, probability)
            if not data.startswith(before):
                continue
            more = data[len(before) :]
            begun = said + (more if said else more.lstrip())  # space before the quotation mark says nothing
            first, end = self._beginning_with(begun)
            if end - first == 1 or not first <= chosen[0] < end:
                known.append((first, end))
                shares[first:end] += path * probability / max(1, end - first)
        first, end = self._beginning_with(said)
        is_untold = np.ones(end - first, bool)
        for of_known in known:
            is_untold[max(0, of_known[0] - first) : max(0, of_known[1] - first)] = False
        if untold > 0 and is_untold.any():
            # a token that is not among the likeliest is less likely than each of them
            shares[first:end][is_untold] += path * min(untold / int(is_untold.sum()), least)

    def _beginning_with(self, begun: bytes) -> tuple[int, int]:
        """The labels, as a range of the sorted ones, that may be meant by an answer that begins so, or goes on behind
        the label."""
        whole = bisect_right(self._sorted, begun) - 1
        if whole >= 0 and begun.startswith(self._sorted[whole]):  # no written label begins with another one
            return whole, whole + 1
        # no byte of UTF-8 is 0xff
        return bisect_left(self._sorted, begun), bisect_left(self._sorted, begun + b"\xff")


@lru_cache(maxsize=256)
def label_probabilities(labels: tuple[str, ...]) -> LabelProbabilities:
    """For labels that many answers are about."""
    return LabelProbabilities(labels)
