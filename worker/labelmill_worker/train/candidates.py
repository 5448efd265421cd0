"""The labels that a prompt names for a text: their vectors, and how often the right ones are among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.errors import Permanent
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.specs import EMBEDDING_MODEL
from labelmill_worker.inference.models.nearest_labels import NearestLabels, label_texts, nearest
from labelmill_worker.train import embedding
from labelmill_worker.train.dataset_rows import Row, in_blocks, read_rows
from labelmill_worker.train.left_out import LeftOut, left_out_of_vectors
from labelmill_worker.train.step_context import StepContext

Vectors = NDArray[np.float32]


def matrix_of(stored: Sequence[bytes], dimensions: int = -1) -> Vectors:
    """Vectors as they are stored, as float32 (vectors, dimensions)."""
    if not stored:
        return np.zeros((0, max(dimensions, 0)), np.float32)
    return np.frombuffer(b"".join(stored), "<f2").reshape(len(stored), -1).astype(np.float32)


def label_vectors(step: StepContext, schema: LabelSchema) -> Vectors:
    """The vectors of the labels' names and descriptions, zeros where one could not be embedded. Raises Permanent."""
    texts = label_texts(schema, step.spec.descriptions)
    found = list(embedding.vectors_of(step, EMBEDDING_MODEL, iter(list(zip(texts, range(len(texts)), strict=True)))))
    if not found:
        raise Permanent("none of the labels could be embedded")
    of_found = matrix_of([data for data, _, _ in found])
    vectors = np.zeros((len(texts), of_found.shape[1]), np.float32)
    vectors[[number for _, number, _ in found]] = of_found
    return vectors


def candidates_found(step: StepContext, labels: NearestLabels, count: int) -> tuple[dict[str, Any], LeftOut]:
    """How many rows of validation have their labels among the nearest ones, for the training's details; and the rows
    without a vector, which do not count."""
    hits = dict.fromkeys((target.name for target in labels.schema.targets), 0)
    rows = dict.fromkeys(hits, 0)
    missing = 0

    def blocks() -> Iterator[list[Row]]:
        validation = step.split_file("validation")
        return in_blocks(read_rows(validation)) if validation is not None else iter(())

    for block in blocks():
        found = list(embedding.vectors_of(step, EMBEDDING_MODEL, iter(block)))
        missing += len(block) - len(found)
        vectors = matrix_of([data for data, _, _ in found], labels.vectors[0].shape[1])
        for target, of_labels in zip(labels.schema.targets, labels.vectors, strict=True):
            places = nearest(of_labels, vectors, count)
            for (_, given, _), near in zip(found, places.tolist(), strict=True):
                if (value := given.get(target.name)) is not None:
                    rows[target.name] += 1
                    named = {target.labels[place] for place in near}
                    hits[target.name] += set(value if isinstance(value, list) else [value]) <= named
    shares = {name: hits[name] / rows[name] if rows[name] else None for name in hits}
    said = ", ".join(f"{name} {share:.1%}" for name, share in shares.items() if share is not None)
    said = f"the right labels are among the {count} nearest in validation: {said or 'there is no row to tell'}"
    texts = ([text for text, _ in block] for block in blocks())
    left_out = left_out_of_vectors(step, EMBEDDING_MODEL, missing, lambda: texts)
    return {"count": count, "rows": rows, "found": shares, "said": said}, left_out
