"""The method `prompt`: nothing is trained; the whole prompt is made once and stored with the version.

queued → validating (choose examples, weigh what has to be paid for) → running → succeeded. What costs something goes
through the engine: for `--shot-selection nearest` and `--candidates` examples and labels are embedded, and the prompt
is tried on rows of validation for `--texts-per-prompt auto` and `--target-precision` (`prompt_trials`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from labelmill.contracts.errors import Permanent
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.specs import EMBEDDING_MODEL
from labelmill.contracts.states import TrainingState
from labelmill.core.storage.references import model_file
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.nearest_labels import NearestLabels
from labelmill_worker.store.inner_models import trial_recipe
from labelmill_worker.train import embedding
from labelmill_worker.train.candidates import candidates_found, label_vectors, matrix_of
from labelmill_worker.train.dataset_rows import holds_chats
from labelmill_worker.train.left_out import LeftOut, left_out_of_vectors
from labelmill_worker.train.logprobs import find_out
from labelmill_worker.train.prompt_parts import (
    MAX_EXAMPLES,
    is_nearest,
    needs_vectors,
    pool_rows,
    prompt_recipe,
    sample_examples,
    shown_at_random,
    texts_to_embed,
)
from labelmill_worker.train.prompt_trials import Trials, require_probabilities
from labelmill_worker.train.step_context import NextPoll, StepContext


def validate(step: StepContext) -> NextPoll:
    """validating → running or awaiting_approval: weigh what it costs."""
    schema = LabelSchema.from_json(step.dataset.label_schema or [])
    spec = step.spec
    needed = embedding.Needed(0, 0, 0.0, "")
    with step.long_slot():
        if needs_vectors(step.spec):
            texts = texts_to_embed(spec, schema, step.split_file)
            needed = embedding.count_unembedded(step, EMBEDDING_MODEL, texts)
        if spec.texts_per_prompt == "auto" or spec.target_precision:
            train = step.split_file("train")
            trials = Trials(step, schema, prompt_recipe(spec, schema, train) | shown_at_random(spec, schema, train))
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
    if needs_vectors(step.spec):
        wait_s = embedding.embed(step, EMBEDDING_MODEL, lambda: texts_to_embed(step.spec, schema, step.split_file))
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
    choice, thresholds, precisions, unanswered = tried
    details: dict[str, Any] = {"targets": precisions} if precisions else {}
    if choice is not None:
        details["texts_per_prompt"] = choice.document(len(trials.rows))
        step.note(choice.said)
        recipe = _with_texts(recipe, choice.texts)
    if (found := recipe.get("candidates_found")) is not None:
        details["candidates"] = found
        step.note(found["said"])
    details["left_out"] = (LeftOut.of_details(recipe.pop("left_out", None)) + unanswered).document()
    with embedding.discarded_if_cancelled(step):
        embedding.succeed(step, recipe, thresholds, details)
    return None


def _with_texts(recipe: dict[str, Any], texts: int) -> dict[str, Any]:
    numbered = {"numbered": recipe["numbered"] | {"texts": texts}} if texts > 1 else {}
    return {name: value for name, value in recipe.items() if name != "numbered"} | numbered


def _recipe(step: StepContext, schema: LabelSchema, *, logprobs: bool) -> dict[str, Any]:
    """The whole prompt, and the file of the version."""
    step.begin_phase("making the prompt")
    train = step.split_file("train")
    recipe = prompt_recipe(step.spec, schema, train) | {"logprobs": logprobs}
    if step.spec.shots and not is_nearest(step.spec):
        recipe["examples"] = sample_examples(train, schema, step.spec.shots, MAX_EXAMPLES)
    if needs_vectors(step.spec):
        with step.long_slot():
            recipe |= _file(step, schema) | {"embedding_model": EMBEDDING_MODEL}
    return recipe


def _file(step: StepContext, schema: LabelSchema) -> dict[str, Any]:
    """The file of what is chosen by vectors, as the recipe names it."""
    examples = pool_rows(step.spec, schema, step.split_file("train"))
    found = list(embedding.vectors_of(step, EMBEDDING_MODEL, iter(examples)))
    rows = [{"text": text, "labels": labels} for _, labels, text in found]
    left_out = left_out_of_vectors(
        step, EMBEDDING_MODEL, len(examples) - len(found), lambda: iter([[text for text, _ in examples]])
    )
    labels, of_recipe = None, dict[str, Any]()
    if step.spec.candidates is not None:
        names = label_vectors(step, schema)
        vectors = matrix_of([data for data, _, _ in found], names.shape[1])
        labels = NearestLabels.of(schema, names, rows, vectors)
        of_recipe["candidates_found"], of_validation = candidates_found(step, labels, step.spec.candidates)
        left_out += of_validation
    elif not found:
        raise Permanent("none of the examples could be embedded")
    else:
        vectors = matrix_of([data for data, _, _ in found])
    if not is_nearest(step.spec):
        rows, vectors = [], vectors[:0]
    pool = ExamplePool.of(schema, rows, vectors, labels)
    step.confirm_lease()
    embedding.delete_leftovers(step)
    file = model_file(step.row.id)
    return of_recipe | {"left_out": left_out.document(), "file": file, "sha256": pool.save(step.storage, file)}


STEPS: dict[TrainingState, Callable[[StepContext], NextPoll]] = {
    TrainingState.QUEUED: embedding.begin,
    TrainingState.VALIDATING: validate,
    TrainingState.AWAITING_APPROVAL: embedding.await_approval,
    TrainingState.RUNNING: run,
}
