"""Texts to sparse n-gram counts, in numpy over the whole request at once.

scikit-learn's vectorisers loop over every n-gram in Python: 10 ms for 100 short texts, under the GIL, which would make
the emulator the bottleneck of every benchmark. Here the n-grams of all texts are hashed together as array operations.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

BUCKETS = 1 << 18  #: columns for words; as many again, after them, for characters
COLUMNS = 2 * BUCKETS
CHARACTER_NGRAMS = range(2, 6)
MIN_WORD_CHARS = 2

_BASE = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2**64
_BASE_INVERSE = pow(_BASE, -1, 1 << 64)
_SEPARATOR = "\x00"
_BMP = 1 << 16

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]


def ngram_columns(texts: Sequence[str]) -> tuple[Indices, Indices]:
    """Hash the words 1-2-grams and character 2-5-grams of texts.

    Returns (row, column) of every occurrence, unsorted, repeated where an n-gram repeats; columns below `BUCKETS`
    are of words. The same text gives the same columns whatever stands beside it.
    """
    cleaned = (" ".join(text.replace(_SEPARATOR, " ").split()) for text in texts)
    joined = (_SEPARATOR + _SEPARATOR.join(cleaned) + _SEPARATOR).lower()
    points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    inside = points != 0
    row_of = np.cumsum(~inside, dtype=np.int64) - 1
    hashes = _mixed(points.astype(np.uint64) + np.uint64(1))
    rows, columns = _word_columns(points, hashes, row_of)
    for size in CHARACTER_NGRAMS:
        if len(points) < size:
            break
        last = len(points) - size + 1
        window = hashes[:last].copy()
        for offset in range(1, size):
            window = window * np.uint64(_BASE) + hashes[offset : offset + last]
        # Rows change at each separator: equal rows at both ends mean that none lies between.
        whole = inside[:last] & (row_of[:last] == row_of[size - 1 :])
        rows.append(row_of[:last][whole])
        columns.append(_bucket(window[whole]) + BUCKETS)
    return np.concatenate(rows), np.concatenate(columns)


def _word_columns(
    points: npt.NDArray[np.uint32], hashes: Hashes, row_of: Indices
) -> tuple[list[Indices], list[Indices]]:
    is_word = (points >= _BMP) | _word_characters()[np.minimum(points, _BMP - 1)]
    edges = np.diff(is_word.astype(np.int8))
    # A separator opens and closes the array, so every word has both edges.
    starts, ends = np.flatnonzero(edges == 1) + 1, np.flatnonzero(edges == -1) + 1
    long_enough = ends - starts >= MIN_WORD_CHARS
    starts, ends = starts[long_enough], ends[long_enough]
    powers = _powers(_BASE, len(points))
    prefix = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes * powers, dtype=np.uint64)])
    words = _mixed((prefix[ends] - prefix[starts]) * _powers(_BASE_INVERSE, len(points))[starts])
    rows = row_of[starts]
    adjacent = rows[:-1] == rows[1:]
    pairs = _mixed(words[:-1] * np.uint64(_BASE) + words[1:])[adjacent]
    return [rows, rows[:-1][adjacent]], [_bucket(words), _bucket(pairs)]


def _powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, dtype=np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _mixed(values: Hashes) -> Hashes:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _bucket(hashes: Hashes) -> Indices:
    return (_mixed(hashes) & np.uint64(BUCKETS - 1)).astype(np.int64)


@cache
def _word_characters() -> npt.NDArray[np.bool_]:
    return np.fromiter((chr(point).isalnum() or point == ord("_") for point in range(_BMP)), dtype=np.bool_, count=_BMP)
