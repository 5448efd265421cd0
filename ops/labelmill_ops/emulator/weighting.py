"""TF-IDF weights over hashed n-grams, as scikit-learn's `TfidfVectorizer` computes them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from labelmill_ops.emulator.features import BUCKETS, COLUMNS, ngram_columns


@dataclass(frozen=True)
class TfidfWeights:
    """The n-grams a model saw in training, with their weights."""

    columns: npt.NDArray[np.int64]  #: hashed columns seen, ascending: words first, then characters
    idf: npt.NDArray[np.float32]  #: smoothed inverse document frequency of each

    @classmethod
    def fitted_to(cls, texts: Sequence[str]) -> "TfidfWeights":
        """Learn the weights of texts (all of a training file)."""
        rows, columns = ngram_columns(texts)
        pairs = np.unique(rows * COLUMNS + columns)
        frequency = np.bincount(pairs % COLUMNS, minlength=COLUMNS)
        seen = np.flatnonzero(frequency)
        idf = np.log((1 + len(texts)) / (1 + frequency[seen])) + 1
        return cls(columns=seen, idf=idf.astype(np.float32))

    def __post_init__(self) -> None:
        """Build the lookup from hashed to dense columns, -1 where nothing was seen."""
        lookup = np.full(COLUMNS, -1, dtype=np.int32)
        lookup[self.columns] = np.arange(len(self.columns), dtype=np.int32)
        object.__setattr__(self, "_lookup", lookup)
        object.__setattr__(self, "_words", int(np.searchsorted(self.columns, BUCKETS)))

    def weigh(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Return float32 (n, seen n-grams); words and characters each have length 1 per row."""
        rows, hashed = ngram_columns(texts)
        lookup: npt.NDArray[np.int32] = self._lookup  # type: ignore[attr-defined]
        columns = lookup[hashed]
        is_known = columns >= 0
        shape = (len(texts), len(self.columns))
        ones = np.ones(int(is_known.sum()), dtype=np.float32)
        matrix = sparse.csr_matrix((ones, (rows[is_known], columns[is_known])), shape=shape)
        matrix.data *= self.idf[matrix.indices]
        row_of = np.repeat(np.arange(shape[0]), np.diff(matrix.indptr))
        # Two blocks per row, normalised apart: 2 * row for words, 2 * row + 1 for characters.
        block = 2 * row_of + (matrix.indices >= self._words)  # type: ignore[attr-defined]
        squares = np.bincount(block, weights=matrix.data.astype(np.float64) ** 2, minlength=2 * shape[0])
        matrix.data /= np.sqrt(squares)[block].astype(np.float32)
        return matrix
