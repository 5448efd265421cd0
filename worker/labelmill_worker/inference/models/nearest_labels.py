"""Which labels of large targets a prompt names: those nearest to its texts, by vectors. Pure.

A label's vector is the mean of its name's, with its description, and of its examples'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_worker.inference.models.prompt import meaning_of

Vectors = NDArray[np.float32]


def label_texts(schema: LabelSchema, descriptions: Mapping[str, str]) -> list[str]:
    """What is embedded for the labels of all targets, in their order."""
    texts = []
    for target in schema.targets:
        for label in target.labels:
            meaning = meaning_of(label, target, descriptions)
            texts.append(f"{label.replace('_', ' ')}: {meaning}" if meaning else label.replace("_", " "))
    return texts


def longest_labels(schema: LabelSchema, descriptions: Mapping[str, str], count: int) -> LabelSchema:
    """The `count` labels of each target that take most room in a prompt: an upper bound for any others."""

    def room(target: Target) -> list[int]:
        return [len(label) + len(meaning_of(label, target, descriptions) or "") for label in target.labels]

    return LabelSchema(
        tuple(_only(target, np.argsort(room(target), kind="stable")[::-1][:count]) for target in schema.targets)
    )


@dataclass(frozen=True)
class NearestLabels:
    """The vectors of each target's labels, of length 1, or 0 where nothing of a label could be embedded."""

    schema: LabelSchema
    vectors: Sequence[Vectors]

    @classmethod
    def of(
        cls, schema: LabelSchema, names: Vectors, rows: Sequence[Mapping[str, Any]], examples: Vectors
    ) -> NearestLabels:
        """`names`: the vectors of `label_texts`; `examples`: of the labelled `rows`."""
        of_examples = _unit(examples)
        sums, first = [], 0
        for target in schema.targets:
            of_target = _unit(names[first : first + len(target.labels)])
            first += len(target.labels)
            places = {label: place for place, label in enumerate(target.labels)}
            for row, vector in zip(rows, of_examples, strict=True):
                value = row["labels"].get(target.name)
                for label in value if isinstance(value, list) else [value]:
                    if label in places:
                        of_target[places[label]] += vector
            sums.append(_unit(of_target))
        return cls(schema, sums)

    @classmethod
    def from_array(cls, schema: LabelSchema, stored: Vectors) -> NearestLabels:
        """From `array`."""
        ends = np.cumsum([len(target.labels) for target in schema.targets])
        return cls(schema, np.split(stored, ends[:-1]))

    @property
    def array(self) -> Vectors:
        """The vectors of all targets' labels, one after the other."""
        return np.concatenate(self.vectors)

    def among(self, vectors: Vectors, count: int) -> LabelSchema:
        """The targets with their `count` labels nearest to each of the vectors; labels keep their order."""
        targets = []
        for target, of_labels in zip(self.schema.targets, self.vectors, strict=True):
            targets.append(_only(target, np.unique(nearest(of_labels, vectors, count))))
        return LabelSchema(tuple(targets))


def nearest(of_labels: Vectors, vectors: Vectors, count: int) -> NDArray[np.intp]:
    """The places of the `count` labels nearest to each of the vectors: (vectors, count), in no order."""
    if count >= len(of_labels):
        return np.broadcast_to(np.arange(len(of_labels)), (len(vectors), len(of_labels)))
    return np.argpartition(-(vectors @ of_labels.T), count - 1, axis=1)[:, :count]


def _only(target: Target, places: NDArray[np.intp]) -> Target:
    return Target(target.name, tuple(target.labels[place] for place in sorted(places.tolist())), target.multi)


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return units
