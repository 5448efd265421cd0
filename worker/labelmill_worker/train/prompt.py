"""The method `prompt`: nothing is trained; the whole prompt is made once and stored with the version.

queued → validating (choose examples, weigh what embedding them costs) → running → succeeded. Only `--shot-selection
nearest` costs anything worth a word: the examples to choose from are embedded, through the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from labelmill.contracts.errors import InvalidInput, Permanent
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.specs import EMBEDDING_MODEL
from labelmill.contracts.states import TrainingState
from labelmill.core.storage.references import model_file
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.numbered_prompt import numbered_recipe
from labelmill_worker.inference.models.prompt import answer_schema, system_message
from labelmill_worker.train import embedding
from labelmill_worker.train.dataset_rows import holds_chats, read_rows
from labelmill_worker.train.logprobs import find_out
from labelmill_worker.train.sampling import sample_per_label
from labelmill_worker.train.step_context import NextPoll, StepContext

MAX_EXAMPLES = 2_000  #: Of a balanced prompt: it goes with every text.
POOL_PER_LABEL, MAX_POOL = 100, 20_000  #: What the nearest examples are chosen from.


def validate(step: StepContext) -> NextPoll:
    """validating → running or awaiting_approval: weigh what it costs."""
    schema = LabelSchema.from_json(step.dataset.label_schema or [])
    if _is_nearest(step):
        with step.long_slot():
            return embedding.weigh(step, EMBEDDING_MODEL, _pool_texts(step, schema))
    step.save(estimate={"amount": 0.0, "currency": "USD", "texts": 0, "tokens": 0})
    step.move(TrainingState.RUNNING, "starts; nothing to pay for")
    return 0.0


def run(step: StepContext) -> NextPoll:
    """running → succeeded: make the prompt."""
    schema = LabelSchema.from_json(step.dataset.label_schema or [])
    spec = step.spec
    chats = holds_chats(step.split_file("train"))
    if _is_nearest(step):
        wait_s = embedding.embed(step, EMBEDDING_MODEL, lambda: _pool_texts(step, schema))
        if wait_s is not None:
            return wait_s
    logprobs = find_out(step)
    if not isinstance(logprobs, bool):
        return logprobs
    recipe: dict[str, Any] = {
        "system": system_message(schema, spec.descriptions),
        "answer_schema": answer_schema(schema),
        "shots": spec.shots,
        "shot_selection": spec.shot_selection,
        "chats": chats,
        "logprobs": logprobs,
    }
    if spec.texts_per_prompt > 1:
        recipe["numbered"] = numbered_recipe(schema, spec.descriptions, spec.texts_per_prompt)
    if _is_nearest(step):
        with step.long_slot():
            pool = _pool_file(step, schema)
        recipe |= pool | {"embedding_model": EMBEDDING_MODEL}
    elif spec.shots:
        recipe["examples"] = _sample(step, schema, spec.shots, MAX_EXAMPLES)
    with embedding.discarded_if_cancelled(step):
        embedding.succeed(step, recipe, {}, {})
    return None


def _is_nearest(step: StepContext) -> bool:
    return step.spec.shots > 0 and step.spec.shot_selection == "nearest"


def _sample(step: StepContext, schema: LabelSchema, per_label: int, max_rows: int) -> list[dict[str, Any]]:
    train = step.split_file("train")
    if train is None:
        raise InvalidInput("the dataset has no rows to take examples from")
    return sample_per_label(read_rows(train), schema, per_label, max_rows)


def _pool_texts(step: StepContext, schema: LabelSchema) -> Iterator[list[str]]:
    pool = _sample(step, schema, POOL_PER_LABEL, MAX_POOL)
    for start in range(0, len(pool), 4_096):
        yield [row["text"] for row in pool[start : start + 4_096]]


def _pool_file(step: StepContext, schema: LabelSchema) -> dict[str, Any]:
    rows = ((row["text"], row["labels"]) for row in _sample(step, schema, POOL_PER_LABEL, MAX_POOL))
    vectors = list(embedding.vectors_of(step, EMBEDDING_MODEL, rows))
    if not vectors:
        raise Permanent("none of the examples could be embedded")
    matrix = np.frombuffer(b"".join(data for data, _, _ in vectors), "<f2").reshape(len(vectors), -1).astype(np.float32)
    pool = ExamplePool.of(schema, [{"text": text, "labels": labels} for _, labels, text in vectors], matrix)
    step.confirm_lease()
    embedding.delete_leftovers(step)
    file = model_file(step.row.id)
    return {"file": file, "sha256": pool.save(step.storage, file)}


STEPS: dict[TrainingState, Callable[[StepContext], NextPoll]] = {
    TrainingState.QUEUED: embedding.begin,
    TrainingState.VALIDATING: validate,
    TrainingState.AWAITING_APPROVAL: embedding.await_approval,
    TrainingState.RUNNING: run,
}
