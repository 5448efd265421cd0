"""Which texts go into which request. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from labelmill.core.money.token_counts import BYTES_PER_TOKEN, count_tokens

#: Characters of one request at most: well under the size at which gateways answer 413, and some 50,000 tokens.
MAX_REQUEST_CHARS = 200_000
_CHARS_PER_TOKEN = 4  #: Of ASCII; other scripts take up to a token a character.


@dataclass(frozen=True, slots=True)
class Request:
    """Texts to send together."""

    rows: Sequence[int]  #: Their numbers within the batch; a range, of step 1, where none is left out.
    texts: Sequence[str]
    overhead_tokens: int = 0  #: Tokens that go with each text: its answer, and the prompt if it has one of its own.
    shared_tokens: int = 0  #: Tokens that go with the request, however many texts it holds: a prompt for all of them.
    tokens: int = field(init=False, compare=False)  #: An upper estimate of all of them.

    def __post_init__(self) -> None:
        text = "".join(self.texts)  # in one piece: a look at each text takes longer
        size = len(text) // _CHARS_PER_TOKEN if text.isascii() else _size_in_bytes(text) // BYTES_PER_TOKEN
        tokens = size + len(self.texts) * (1 + self.overhead_tokens) + self.shared_tokens
        object.__setattr__(self, "tokens", tokens)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def row_numbers(self) -> NDArray[np.int64]:
        """`rows` as an array."""
        rows = self.rows
        return np.arange(rows.start, rows.stop) if isinstance(rows, range) else np.array(rows, np.int64)

    def values_of(self, chunk: Sequence[str], first_row: int) -> Sequence[str]:
        """Its rows' part of a column of the chunk that begins with `first_row`."""
        rows = self.rows
        if isinstance(rows, range):
            return chunk[rows.start - first_row : rows.stop - first_row]
        return [chunk[row - first_row] for row in rows]

    def halves(self) -> tuple[Request, Request]:
        """The same rows as two requests."""
        middle = len(self.rows) // 2
        return (
            Request(self.rows[:middle], self.texts[:middle], self.overhead_tokens, self.shared_tokens),
            Request(self.rows[middle:], self.texts[middle:], self.overhead_tokens, self.shared_tokens),
        )


def _size_in_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def plan_requests(rows: Sequence[int], texts: Sequence[str], texts_per_request: int) -> Iterator[Request]:
    """Cut rows into requests of at most `texts_per_request` texts and `MAX_REQUEST_CHARS` characters.

    A text longer than that goes alone.
    """
    start = 0
    while start < len(texts):
        chars_so_far = [*accumulate(map(len, texts[start : start + texts_per_request]))]
        end = start + max(1, bisect_right(chars_so_far, MAX_REQUEST_CHARS))
        yield Request(rows[start:end], texts[start:end])
        start = end


def plan_by_tokens(
    rows: Sequence[int], texts: Sequence[str], texts_per_request: int, max_tokens: int
) -> Iterator[Request]:
    """Cut rows into requests of at most `texts_per_request` texts and, as far as can be estimated, `max_tokens` tokens.

    A text longer than that goes alone.
    """
    start = tokens = 0
    for index, text in enumerate(texts):
        count = count_tokens(text)
        if index > start and (index - start >= texts_per_request or tokens + count > max_tokens):
            yield Request(rows[start:index], texts[start:index])
            start, tokens = index, 0
        tokens += count
    if start < len(texts):
        yield Request(rows[start:], texts[start:])
