"""The tokens of a chat model's answer with their probabilities, from a reply to a request with `logprobs`. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

TOP_LOGPROBS = 5  #: Alternatives asked for at each token.
_SLACK = 1e-3  #: A logarithm of a probability may be so far above 0, by rounding.


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was written, and those that might have been, itself left out."""

    data: bytes
    probability: float
    others: Sequence[tuple[bytes, float]]


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """The tokens of an answer, as the reply has them; `starts` are the bytes of the answer at which they begin."""

    entries: Sequence[Mapping[str, Any]]
    data: Sequence[bytes]
    starts: Sequence[int]

    def from_byte(self, at: int) -> Iterator[Token]:
        """From the token on that holds a byte of the answer. Only these are read: the others say nothing of a label.
        Raises ValueError for one that is not of the documented form."""
        for number in range(self.index_at(at), len(self.entries)):
            try:
                yield _token(self.entries[number], self.data[number])
            except (KeyError, TypeError, AttributeError) as error:
                message = "a token has no probability"
                raise ValueError(message) from error

    def index_at(self, at: int) -> int:
        """Of the token that holds a byte of the answer."""
        return max(0, bisect_right(self.starts, at) - 1)


def read_tokens(document: Mapping[str, Any], content: str) -> AnswerTokens | None:
    """Those of the first choice, whose text is `content`. None: it has none, or they are not those of the text."""
    try:
        entries = document["choices"][0]["logprobs"]["content"]
        data = [_bytes_of(entry) for entry in entries]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None
    # signs for the end of an answer are tokens too, and space around it may be left out of the content
    begins = b"".join(data).find(content.encode("utf-8", "surrogatepass"))
    if begins < 0 or not content:
        return None
    starts = list(accumulate(map(len, data[:-1]), initial=-begins))
    return AnswerTokens(entries, data, starts)


def _token(entry: Mapping[str, Any], data: bytes) -> Token:
    others = {_bytes_of(one): _probability(one) for one in entry.get("top_logprobs") or ()}
    others.pop(data, None)
    return Token(data, _probability(entry), list(others.items()))


def _bytes_of(entry: Mapping[str, Any]) -> bytes:
    """A token may end in the middle of a character, which only its bytes can say."""
    of_bytes = entry.get("bytes")
    return bytes(of_bytes) if isinstance(of_bytes, list) else entry["token"].encode("utf-8", "surrogatepass")


def _probability(entry: Mapping[str, Any]) -> float:
    logarithm = entry["logprob"]
    if type(logarithm) not in (int, float) or not logarithm <= _SLACK:
        message = "a logarithm of a probability is a number up to 0"
        raise ValueError(message)
    return math.exp(min(logarithm, 0.0))
