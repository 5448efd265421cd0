"""The method `prompt`: nothing is trained; the whole prompt is made once and stored with the version.

queued → validating (choose examples, weigh what has to be paid for) → running → succeeded. What costs something goes
through the engine: for `--shot-selection nearest` and `--candidates` examples and labels are embedded, and the prompt
is tried on rows of validation for `--texts-per-prompt auto` and `--target-precision` (`prompt_trials`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from labelmill.contracts.errors import InvalidInput, Permanent
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.specs import EMBEDDING_MODEL, MAX_TEXTS_PER_PROMPT, TrainSpec
from labelmill.contracts.states import TrainingState
from labelmill.core.storage.base import StoredFile
from labelmill.core.storage.references import model_file
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.nearest_labels import NearestLabels, label_texts
from labelmill_worker.inference.models.numbered_prompt import numbered_recipe
from labelmill_worker.inference.models.prompt import answer_schema, system_message
from labelmill_worker.store.inner_models import trial_recipe
from labelmill_worker.train import embedding
from labelmill_worker.train.candidates import candidates_found, label_vectors, matrix_of
from labelmill_worker.train.dataset_rows import BLOCK_ROWS, Row, holds_chats, in_blocks, read_rows
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
    choice, thresholds, precisions = tried
    details: dict[str, Any] = {"targets": precisions} if precisions else {}
    if choice is not None:
        details["texts_per_prompt"] = choice.document(len(trials.rows))
        step.note(choice.said)
        recipe = _with_texts(recipe, choice.texts)
    if (found := recipe.get("candidates_found")) is not None:
        details["candidates"] = found
        step.note(found["said"])
    with embedding.discarded_if_cancelled(step):
        embedding.succeed(step, recipe, thresholds, details)
    return None


def _with_texts(recipe: dict[str, Any], texts: int) -> dict[str, Any]:
    numbered = {"numbered": recipe["numbered"] | {"texts": texts}} if texts > 1 else {}
    return {name: value for name, value in recipe.items() if name != "numbered"} | numbered


def _recipe(step: StepContext, schema: LabelSchema, *, logprobs: bool) -> dict[str, Any]:
    """The whole prompt, and the file of the version."""
    train = step.split_file("train")
    recipe = prompt_recipe(step.spec, schema, train) | {"logprobs": logprobs}
    if step.spec.shots and not is_nearest(step.spec):
        recipe["examples"] = _sample(train, schema, step.spec.shots, MAX_EXAMPLES)
    if needs_vectors(step.spec):
        with step.long_slot():
            recipe |= _file(step, schema) | {"embedding_model": EMBEDDING_MODEL}
    return recipe


def prompt_recipe(spec: TrainSpec, schema: LabelSchema, train: StoredFile | None) -> dict[str, Any]:
    """What is said in every prompt; of texts in one prompt as many as may be tried."""
    recipe: dict[str, Any] = {
        "system": system_message(schema, spec.descriptions),
        "answer_schema": answer_schema(schema),
        "shots": spec.shots,
        "shot_selection": spec.shot_selection,
        "chats": holds_chats(train),
    }
    if spec.candidates is not None:
        recipe |= {"candidates": spec.candidates, "descriptions": spec.descriptions}
    texts = MAX_TEXTS_PER_PROMPT if spec.texts_per_prompt == "auto" else spec.texts_per_prompt
    if texts > 1:
        recipe["numbered"] = numbered_recipe(schema, spec.descriptions, texts)
    return recipe


def shown_at_random(spec: TrainSpec, schema: LabelSchema, train: StoredFile | None) -> dict[str, Any]:
    """Examples about as long as those that will be shown, for an estimate."""
    shown: dict[str, Any] = {"embedding_model": EMBEDDING_MODEL} if needs_vectors(spec) else {}
    if spec.shots:
        shown["examples"] = _sample(train, schema, spec.shots, MAX_EXAMPLES)
    return shown


def is_nearest(spec: TrainSpec) -> bool:
    """Whether a prompt shows the examples that are nearest to its text."""
    return spec.shots > 0 and spec.shot_selection == "nearest"


def needs_vectors(spec: TrainSpec) -> bool:
    """Whether a part of the prompt is chosen by vectors."""
    return is_nearest(spec) or spec.candidates is not None


def _sample(train: StoredFile | None, schema: LabelSchema, per_label: int, max_rows: int) -> list[dict[str, Any]]:
    if train is None:
        raise InvalidInput("the dataset has no rows to take examples from")
    return sample_per_label(read_rows(train), schema, per_label, max_rows)


def texts_to_embed(
    spec: TrainSpec, schema: LabelSchema, split_file: Callable[[str], StoredFile | None]
) -> Iterator[list[str]]:
    """Examples; where prompts name the nearest labels also these, and validation, to see how often they are right."""
    pool = _pool_rows(spec, schema, split_file("train"))
    for start in range(0, len(pool), BLOCK_ROWS):
        yield [text for text, _ in pool[start : start + BLOCK_ROWS]]
    if spec.candidates is None:
        return
    yield label_texts(schema, spec.descriptions)
    if (validation := split_file("validation")) is not None:
        for block in in_blocks(read_rows(validation)):
            yield [text for text, _ in block]


def _pool_rows(spec: TrainSpec, schema: LabelSchema, train: StoredFile | None) -> list[Row]:
    if not is_nearest(spec) and train is None:
        return []  # labels alone, by their names
    return [(row["text"], row["labels"]) for row in _sample(train, schema, POOL_PER_LABEL, MAX_POOL)]


def _file(step: StepContext, schema: LabelSchema) -> dict[str, Any]:
    """The file of what is chosen by vectors, as the recipe names it."""
    pool_rows = _pool_rows(step.spec, schema, step.split_file("train"))
    found = list(embedding.vectors_of(step, EMBEDDING_MODEL, iter(pool_rows)))
    rows = [{"text": text, "labels": labels} for _, labels, text in found]
    labels, of_recipe = None, dict[str, Any]()
    if step.spec.candidates is not None:
        names = label_vectors(step, schema)
        vectors = matrix_of([data for data, _, _ in found], names.shape[1])
        labels = NearestLabels.of(schema, names, rows, vectors)
        of_recipe["candidates_found"] = candidates_found(step, labels, step.spec.candidates)
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
    return of_recipe | {"file": file, "sha256": pool.save(step.storage, file)}


STEPS: dict[TrainingState, Callable[[StepContext], NextPoll]] = {
    TrainingState.QUEUED: embedding.begin,
    TrainingState.VALIDATING: validate,
    TrainingState.AWAITING_APPROVAL: embedding.await_approval,
    TrainingState.RUNNING: run,
}
