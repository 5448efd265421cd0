"""A linear head over vectors: its arithmetic, and the file it is kept in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.core.storage.base import ReadableFile, Storage
from labelmill_worker.inference.models.artifacts import ArtifactRefused, load_artifact, save_artifact, shown_file

Matrix = NDArray[np.float32]

NEVER = -30.0  #: Intercept of a label that no row of train has: its score is 0 for all purposes.


@dataclass(frozen=True)
class Head:
    """For each target of `schema` weights (dimensions, labels) and intercepts (labels), float32."""

    schema: LabelSchema
    weights: Sequence[Matrix]
    intercepts: Sequence[Matrix]

    @property
    def dimensions(self) -> int:
        """The length of the vectors it takes."""
        return int(self.weights[0].shape[0])

    def scores(self, vectors: Matrix) -> list[Matrix]:
        """For each target float32 (rows, labels): rows sum to 1 for a single-label target, are independent else."""
        layers = zip(self.schema.targets, self.weights, self.intercepts, strict=True)
        return [probabilities(vectors @ weights + intercepts, target) for target, weights, intercepts in layers]

    def at_temperatures(self, temperatures: Mapping[str, float]) -> Head:
        """The same head, less sure of itself by the temperature of each target that has one. A label that no row of
        train had, or every row, stays as good as impossible or certain."""
        weights, intercepts = list(self.weights), list(self.intercepts)
        for number, target in enumerate(self.schema.targets):
            if (temperature := temperatures.get(target.name, 1.0)) != 1.0:
                learnt = weights[number].any(axis=0) | (np.abs(intercepts[number]) < -NEVER)
                by = np.where(learnt, temperature, 1.0).astype(np.float32)
                weights[number], intercepts[number] = weights[number] / by, intercepts[number] / by
        return Head(self.schema, weights, intercepts)

    def save(self, storage: Storage, reference: str) -> str:
        """Write the head's file. Returns its SHA-256. Raises Permanent."""
        arrays: dict[str, NDArray[Any]] = {}
        for number, (weights, intercepts) in enumerate(zip(self.weights, self.intercepts, strict=True)):
            arrays[f"weights_{number}"] = weights.astype("<f4")
            arrays[f"intercepts_{number}"] = intercepts.astype("<f4")
        return save_artifact(storage, reference, {"kind": "head", "targets": self.schema.to_json()}, arrays)

    @classmethod
    def load(cls, file: ReadableFile, sha256: str, model: str, schema: LabelSchema) -> Head:
        """Read the file of a head for `schema`; `model` is how a refusal names it. Raises ArtifactRefused."""
        document, arrays = load_artifact(file, sha256, model, "head")
        try:
            saved_schema = LabelSchema.from_json(document["targets"])
            weights = [arrays[f"weights_{number}"] for number in range(len(saved_schema.targets))]
            intercepts = [arrays[f"intercepts_{number}"] for number in range(len(saved_schema.targets))]
        except (KeyError, TypeError) as error:
            raise ArtifactRefused(
                f"the file of model {model} cannot be understood ({shown_file(file)}): train it again"
            ) from error
        fits = all(
            matrix.shape == (weights[0].shape[0], len(target.labels)) and offsets.shape == (len(target.labels),)
            for target, matrix, offsets in zip(saved_schema.targets, weights, intercepts, strict=True)
        )
        if saved_schema != schema or not fits:
            raise ArtifactRefused(
                f"the file of model {model} is for other labels than the model's ({shown_file(file)}): train it again"
            )
        return cls(saved_schema, weights, intercepts)


def probabilities(margins: Matrix, target: Target) -> Matrix:
    """Softmax over the labels of a single-label target, a sigmoid for each label of a multi-label one."""
    if target.multi:
        with np.errstate(over="ignore"):
            return (1 / (1 + np.exp(-margins))).astype(np.float32, copy=False)
    shifted = np.exp(margins - margins.max(axis=1, keepdims=True))
    scores: Matrix = (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32, copy=False)
    return scores
