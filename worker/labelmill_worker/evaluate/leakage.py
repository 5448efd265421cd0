"""Rows of a split that a model has seen in training: their scores say nothing about texts to come."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.chats import text_of_row
from labelmill.core.storage.base import ReadableFile
from labelmill_worker.evaluate.truth import read_split
from labelmill_worker.prepare.same_text import digests_of


def seen_in(train: ReadableFile, split: ReadableFile) -> NDArray[np.bool_]:
    """Which rows of `split` have a text that stands in `train` too, but for case, spaces and punctuation."""
    known = np.unique(digests_of(_texts(train)))
    return np.isin(digests_of(_texts(split)), known)


def _texts(split: ReadableFile) -> Iterable[str]:
    return map(text_of_row, read_split(split))
