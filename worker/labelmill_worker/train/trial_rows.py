"""Which rows of validation a prompt is tried on, and with how many texts in a request. Quotes count them too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.specs import TrainSpec
from labelmill.core.chunks.distinct import DistinctTexts
from labelmill.core.storage.base import StoredFile
from labelmill_worker.inference.models.numbered_prompt import texts_per_prompt
from labelmill_worker.train.dataset_rows import Row, in_blocks, read_rows
from labelmill_worker.train.texts_per_prompt import MAX_ROWS, numbers_to_try


def rows_to_try(validation: StoredFile | None) -> Sequence[Row]:
    """Those of validation that are asked about: with different texts, and not too many."""
    if validation is None:
        return []
    distinct, rows = DistinctTexts(), list[Row]()
    for block in in_blocks(read_rows(validation)):
        first_rows = distinct.first_rows([text for text, _ in block]).tolist()
        rows += [row for row, first in zip(block, first_rows, strict=True) if first < 0 and row[0].strip()]
    every = -(-len(rows) // MAX_ROWS) if rows else 1
    return rows[::every]


def most_texts(recipe: Mapping[str, Any], schema: LabelSchema) -> int:
    """How many texts go into a prompt at most, so that the longest answers fit."""
    return texts_per_prompt(recipe["numbered"], schema) if "numbered" in recipe else 1


def numbers_of_texts(spec: TrainSpec, rows: int, at_most: int) -> Sequence[int]:
    """The numbers of texts in a prompt that a training tries, smallest first."""
    if spec.texts_per_prompt == "auto":
        larger = numbers_to_try(rows, at_most)
        if larger:
            return [1, *larger]
    if not spec.target_precision:
        return []
    return [1 if spec.texts_per_prompt == "auto" else spec.texts_per_prompt]
