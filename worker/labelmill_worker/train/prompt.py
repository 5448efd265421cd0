"""The method `prompt`: nothing is trained; the whole prompt is made once and stored with the version.

queued → validating (choose examples, weigh what embedding them costs) → running → succeeded. Only `--shot-selection
nearest` costs anything: the examples to choose from are embedded, through the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from labelmill.contracts.errors import InvalidInput, Permanent
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.specs import EMBEDDING_MODEL
from labelmill.contracts.states import TrainingState
from labelmill.core.storage.data_folder import model_file
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.prompt import answer_schema, system_message
from labelmill_worker.train import embedding
from labelmill_worker.train.dataset_rows import holds_chats, read_rows
from labelmill_worker.train.poll import Look, NextLook
from labelmill_worker.train.sampling import sample_per_label

MAX_EXAMPLES = 2_000  #: Of a balanced prompt: it goes with every text.
POOL_PER_LABEL, MAX_POOL = 100, 20_000  #: What the nearest examples are chosen from.


def validate(look: Look) -> NextLook:
    """validating → running or awaiting_approval: weigh what it costs."""
    schema = LabelSchema.from_json(look.dataset.label_schema or [])
    if _is_nearest(look):
        with look.long_slot():
            return embedding.weigh(look, EMBEDDING_MODEL, _pool_texts(look, schema))
    look.save(estimate={"amount": 0.0, "currency": "USD", "texts": 0, "tokens": 0})
    look.move(TrainingState.RUNNING, "starts; nothing to pay for")
    return 0.0


def run(look: Look) -> NextLook:
    """running → succeeded: make the prompt."""
    schema = LabelSchema.from_json(look.dataset.label_schema or [])
    spec = look.spec
    recipe: dict[str, Any] = {
        "system": system_message(schema, spec.descriptions),
        "answer_schema": answer_schema(schema),
        "shots": spec.shots,
        "shot_selection": spec.shot_selection,
        "chats": holds_chats(look.split_path("train")),
    }
    if _is_nearest(look):
        wait_s = embedding.embed(look, EMBEDDING_MODEL, _pool_texts(look, schema))
        if wait_s is not None:
            return wait_s
        with look.long_slot():
            pool = _pool_file(look, schema)
        recipe |= pool | {"embedding_model": EMBEDDING_MODEL}
    elif spec.shots:
        recipe["examples"] = _sample(look, schema, spec.shots, MAX_EXAMPLES)
    with embedding.discarded_if_cancelled(look):
        embedding.succeed(look, recipe, {}, {})
    return None


def _is_nearest(look: Look) -> bool:
    return look.spec.shots > 0 and look.spec.shot_selection == "nearest"


def _sample(look: Look, schema: LabelSchema, per_label: int, at_most: int) -> list[dict[str, Any]]:
    path = look.split_path("train")
    if path is None:
        raise InvalidInput("the dataset has no rows to take examples from")
    return sample_per_label(read_rows(path), schema, per_label, at_most)


def _pool_texts(look: Look, schema: LabelSchema) -> Iterator[list[str]]:
    pool = _sample(look, schema, POOL_PER_LABEL, MAX_POOL)
    for start in range(0, len(pool), 4_096):
        yield [row["text"] for row in pool[start : start + 4_096]]


def _pool_file(look: Look, schema: LabelSchema) -> dict[str, Any]:
    rows = ((row["text"], row["labels"]) for row in _sample(look, schema, POOL_PER_LABEL, MAX_POOL))
    found = list(embedding.vectors_of(look, EMBEDDING_MODEL, rows))
    if not found:
        raise Permanent("none of the examples could be embedded")
    matrix = np.frombuffer(b"".join(data for data, _, _ in found), "<f2").reshape(len(found), -1).astype(np.float32)
    pool = ExamplePool.of(schema, [{"text": text, "labels": labels} for _, labels, text in found], matrix)
    look.confirm_lease()
    embedding.clear_away(look)
    file = model_file(look.row.id)
    return {"file": file, "sha256": pool.save(look.data.path(file))}


STEPS: dict[TrainingState, Callable[[Look], NextLook]] = {
    TrainingState.QUEUED: embedding.begin,
    TrainingState.VALIDATING: validate,
    TrainingState.AWAITING_APPROVAL: embedding.await_approval,
    TrainingState.RUNNING: run,
}
