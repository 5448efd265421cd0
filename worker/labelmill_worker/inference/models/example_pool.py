"""What a prompt model chooses for each text by vectors: the nearest examples of every label, and the nearest labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.label_schema import LabelSchema
from labelmill.core.storage.base import ReadableFile, Storage
from labelmill_worker.inference.models.artifacts import load_artifact, save_artifact
from labelmill_worker.inference.models.nearest_labels import NearestLabels

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class ExamplePool:
    """Labelled texts with their vectors (rows of length 1), and for every answer to every target the rows that
    have it: each label and, for a multi-label target, none. `labels`: None where every prompt names all labels."""

    rows: Sequence[dict[str, Any]]
    vectors: Vectors
    members: Sequence[NDArray[np.intp]]
    labels: NearestLabels | None = None

    @classmethod
    def of(
        cls,
        schema: LabelSchema,
        rows: Sequence[dict[str, Any]],
        vectors: Vectors,
        labels: NearestLabels | None = None,
    ) -> ExamplePool:
        lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        members = [
            np.array([number for number, row in enumerate(rows) if has_label(row, target.name, label)], np.intp)
            for target in schema.targets
            for label in (*target.labels, *([None] if target.multi else []))
        ]
        return cls(rows, (vectors / lengths).astype(np.float32), [found for found in members if len(found)], labels)

    def nearest(self, vectors: Vectors, count: int) -> list[dict[str, Any]]:
        """The `count` rows of every label that are nearest to any of the vectors, each row once, the nearest last."""
        similarity = self.vectors @ vectors[0] if len(vectors) == 1 else (self.vectors @ vectors.T).max(axis=1)
        chosen: set[int] = set()
        for rows in self.members:
            best = rows[np.argsort(-similarity[rows], kind="stable")[:count]]
            chosen.update(best.tolist())
        return [self.rows[number] for number in sorted(chosen, key=lambda number: (similarity[number], number))]

    def save(self, storage: Storage, reference: str) -> str:
        """Write the pool's file. Returns its SHA-256. Raises Permanent."""
        document = {"kind": "examples", "rows": list(self.rows)}
        arrays = {"vectors": self.vectors} | ({} if self.labels is None else {"labels": self.labels.array})
        return save_artifact(storage, reference, document, arrays)

    @classmethod
    def load(cls, file: ReadableFile, sha256: str, model: str, schema: LabelSchema) -> ExamplePool:
        """Read a pool's file; `model` is how a refusal names it. Raises ArtifactRefused."""
        document, arrays = load_artifact(file, sha256, model, "examples")
        labels = NearestLabels.from_array(schema, arrays["labels"]) if "labels" in arrays else None
        return cls.of(schema, document["rows"], arrays["vectors"], labels)


def has_label(row: dict[str, Any], target: str, label: str | None) -> bool:
    """Whether a labelled text has a label of a target; None: whether it is known to have none."""
    value = row["labels"].get(target)
    if label is None:
        return isinstance(value, list) and not value
    return label in value if isinstance(value, list) else value == label
