"""Scores as the world sees them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from labelmill.contracts.errors import Permanent

Scores = NDArray[np.float64]


def as_exported(raw: Sequence[bytes], labels: int) -> Scores:
    """Stored scores as `results` writes them: float64 (rows, labels), each the shortest decimal that names its float32.

    Metrics are computed of these numbers and no others, so that computing them from exported rows gives the same
    to the last digit; a float32 read as float64 differs from its decimal by some 1e-8.
    """
    stored = np.frombuffer(b"".join(raw), "<f4")
    if len(stored) != len(raw) * labels:
        raise Permanent("stored scores do not fit the model's labels: they were written by another version of it")
    if not len(stored):
        return np.empty((len(raw), labels))
    decimals = orjson.loads(orjson.dumps(np.ascontiguousarray(stored), option=orjson.OPT_SERIALIZE_NUMPY))
    return np.array(decimals, np.float64).reshape(len(raw), labels)
