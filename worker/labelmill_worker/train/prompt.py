"""The method `prompt`: nothing is trained; the whole prompt is made once and stored with the version.

queued → validating (choose examples, weigh what has to be paid for) → running → succeeded. What costs something goes
through the engine: with `--shot-selection nearest` the examples to choose from are embedded, and the prompt is tried on
rows of validation for `--texts-per-prompt auto` and `--target-precision` (`prompt_trials`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from labelmill.contracts.errors import InvalidInput, Permanent
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.specs import EMBEDDING_MODEL, MAX_TEXTS_PER_PROMPT
from labelmill.contracts.states import TrainingState
from labelmill.core.storage.references import model_file
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.numbered_prompt import numbered_recipe
from labelmill_worker.inference.models.prompt import answer_schema, system_message
from labelmill_worker.store.inner_models import trial_recipe
from labelmill_worker.train import embedding
from labelmill_worker.train.dataset_rows import holds_chats, read_rows
from labelmill_worker.train.logprobs import find_out
from labelmill_worker.train.prompt_trials import Trials, require_probabilities
from labelmill_worker.train.sampling import sample_per_label
from labelmill_worker.train.step_context import NextPoll, StepContext

MAX_EXAMPLES = 2_000  #: Of a balanced prompt: it goes with every text.
POOL_PER_LABEL, MAX_POOL = 100, 20_000  #: What the nearest examples are chosen from.


def validate(step: StepContext) -> NextPoll:
    """validating → running or awaiting_approval: weigh what it costs."""
    schema = LabelSchema.from_json(step.dataset.label_schema or [])
    spec = step.spec
    needed = embedding.Needed(0, 0, 0.0, "")
    with step.long_slot():
        if _is_nearest(step):
            needed = embedding.count_unembedded(step, EMBEDDING_MODEL, _pool_texts(step, schema))
        if spec.texts_per_prompt == "auto" or spec.target_precision:
            trials = Trials(step, schema, _prompt(step, schema) | _shown_at_random(step, schema))
            needed = _with_trials(needed, trials)
    if not needed.said:
        step.save(estimate={"amount": 0.0, "currency": "USD", "texts": 0, "tokens": 0})
        step.move(TrainingState.RUNNING, "starts; nothing to pay for")
        return 0.0
    return embedding.start_or_wait(step, needed)


def _with_trials(needed: embedding.Needed, trials: Trials) -> embedding.Needed:
    if not trials.numbers:
        return needed
    tokens, amount = trials.estimate()
    asked = len(trials.rows) * len(trials.numbers)
    said = [*([needed.said] if needed.said else []), f"{asked} answers to validation, about {tokens} tokens"]
    total = None if amount is None or needed.amount is None else round(needed.amount + amount, 8)
    return embedding.Needed(needed.texts + asked, needed.tokens + tokens, total, "; ".join(said))


def run(step: StepContext) -> NextPoll:
    """running → succeeded: make the prompt, and try it where it is asked for."""
    schema = LabelSchema.from_json(step.dataset.label_schema or [])
    holds_chats(step.split_file("train"))  # a file that is not there is told of before anything is paid for
    if _is_nearest(step):
        wait_s = embedding.embed(step, EMBEDDING_MODEL, lambda: _pool_texts(step, schema))
        if wait_s is not None:
            return wait_s
    logprobs = find_out(step)
    if not isinstance(logprobs, bool):
        return logprobs
    require_probabilities(step, logprobs=logprobs)
    recipe = trial_recipe(step.engine, step.row.id) or _recipe(step, schema, logprobs=logprobs)
    trials = Trials(step, schema, recipe)
    tried = trials.run()
    if not isinstance(tried, tuple):
        return tried
    choice, thresholds, precisions = tried
    details: dict[str, Any] = {"targets": precisions} if precisions else {}
    if choice is not None:
        details["texts_per_prompt"] = choice.document(len(trials.rows))
        step.note(choice.said)
        recipe = _with_texts(recipe, choice.texts)
    with embedding.discarded_if_cancelled(step):
        embedding.succeed(step, recipe, thresholds, details)
    return None


def _with_texts(recipe: dict[str, Any], texts: int) -> dict[str, Any]:
    numbered = {"numbered": recipe["numbered"] | {"texts": texts}} if texts > 1 else {}
    return {name: value for name, value in recipe.items() if name != "numbered"} | numbered


def _recipe(step: StepContext, schema: LabelSchema, *, logprobs: bool) -> dict[str, Any]:
    """The whole prompt, and the file of the version."""
    recipe = _prompt(step, schema) | {"logprobs": logprobs}
    if _is_nearest(step):
        with step.long_slot():
            return recipe | _pool_file(step, schema) | {"embedding_model": EMBEDDING_MODEL}
    if step.spec.shots:
        recipe["examples"] = _sample(step, schema, step.spec.shots, MAX_EXAMPLES)
    return recipe


def _prompt(step: StepContext, schema: LabelSchema) -> dict[str, Any]:
    """What is said in every prompt; of texts in one prompt as many as may be tried."""
    spec = step.spec
    recipe: dict[str, Any] = {
        "system": system_message(schema, spec.descriptions),
        "answer_schema": answer_schema(schema),
        "shots": spec.shots,
        "shot_selection": spec.shot_selection,
        "chats": holds_chats(step.split_file("train")),
    }
    texts = MAX_TEXTS_PER_PROMPT if spec.texts_per_prompt == "auto" else spec.texts_per_prompt
    if texts > 1:
        recipe["numbered"] = numbered_recipe(schema, spec.descriptions, texts)
    return recipe


def _shown_at_random(step: StepContext, schema: LabelSchema) -> dict[str, Any]:
    """Examples about as long as those that will be shown, for an estimate."""
    if not step.spec.shots:
        return {}
    embedding_model = {"embedding_model": EMBEDDING_MODEL} if _is_nearest(step) else {}
    return {"examples": _sample(step, schema, step.spec.shots, MAX_EXAMPLES)} | embedding_model


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
