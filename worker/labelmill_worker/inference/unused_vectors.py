"""Vectors that were paid for and have not served yet, in memory: where the limit of the model that is asked with them
delays it, their texts are left for a later claim, which pays for no second vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.text_digests import digest_of

_MAX_VECTORS = 20_000  #: 40 MB; of a process that keeps more, the oldest are forgotten.


class UnusedVectors:
    """Of one process. Belongs to its event loop."""

    def __init__(self, max_vectors: int = _MAX_VECTORS) -> None:
        self._max_vectors = max_vectors
        self._vectors: dict[tuple[str, bytes], NDArray[np.float16]] = {}

    def keep(self, model: str, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Keep the vectors of texts."""
        for text, vector in zip(texts, vectors.astype(np.float16), strict=True):
            self._vectors[model, digest_of(text)] = vector.copy()  # not a view, which would keep those of all texts
        while len(self._vectors) > self._max_vectors:
            del self._vectors[next(iter(self._vectors))]

    def of(self, model: str, texts: Sequence[str]) -> NDArray[np.float32] | None:
        """Float32 (texts, dimensions); None: that of some text is not known."""
        if not self._vectors:
            return None
        found = [self._vectors.get((model, digest_of(text))) for text in texts]
        known = [vector for vector in found if vector is not None]
        return np.stack(known).astype(np.float32) if len(known) == len(texts) else None

    def forget(self, model: str, texts: Sequence[str]) -> None:
        """They have served."""
        for text in texts:
            self._vectors.pop((model, digest_of(text)), None)
