"""Vectors for `mistral-embed`: a signed projection of hashed n-grams, so that a linear head can learn from them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from labelmill_ops.emulator.features import BUCKETS, ngram_columns

DIMENSIONS = 1024
_WORD_WEIGHT = 2.0  # words are fewer than character n-grams and say more


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Embed texts. Returns float32 (n, 1024), rows of length 1; equal texts have equal vectors."""
    rows, columns = ngram_columns(texts)
    sign = np.where((columns >> 10) & 1, 1.0, -1.0)
    weight = np.where(columns < BUCKETS, _WORD_WEIGHT, 1.0) * sign
    cells = rows * DIMENSIONS + columns % DIMENSIONS
    vectors = np.bincount(cells, weights=weight, minlength=len(texts) * DIMENSIONS).reshape(len(texts), DIMENSIONS)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: npt.NDArray[np.float32] = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return result
