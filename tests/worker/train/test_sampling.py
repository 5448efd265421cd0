"""Which rows a prompt shows as examples."""

from __future__ import annotations

import numpy as np

from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.train.sampling import sample_per_label

MOOD = LabelSchema((Target("mood", ("joy", "pride"), multi=True),))
ROWS = [(f"text {n}", {"mood": (["joy"], ["pride"], [])[n % 3]}) for n in range(30)]


def test_rows_without_labels_are_shown_like_those_of_a_label() -> None:
    shown = [row["labels"]["mood"] for row in sample_per_label(ROWS, MOOD, 2, 100)]
    assert sorted(shown) == [[], [], ["joy"], ["joy"], ["pride"], ["pride"]]


def test_the_nearest_examples_include_rows_without_labels() -> None:
    rows = [{"text": text, "labels": labels} for text, labels in ROWS[:6]]
    pool = ExamplePool.of(MOOD, rows, np.eye(6, dtype=np.float32))
    shown = [row["labels"]["mood"] for row in pool.nearest(np.full((1, 6), 0.4, np.float32), 1)]
    assert sorted(shown) == [[], ["joy"], ["pride"]]
