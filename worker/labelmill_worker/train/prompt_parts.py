"""What a prompt says and which texts it needs vectors of: reads the dataset and nothing else, as quotes do too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.specs import EMBEDDING_MODEL, MAX_TEXTS_PER_PROMPT, TrainSpec
from labelmill.core.storage.base import StoredFile
from labelmill_worker.inference.models.nearest_labels import label_texts
from labelmill_worker.inference.models.numbered_prompt import numbered_recipe
from labelmill_worker.inference.models.prompt import answer_schema, system_message
from labelmill_worker.train.dataset_rows import BLOCK_ROWS, Row, holds_chats, in_blocks, read_rows
from labelmill_worker.train.sampling import sample_per_label

MAX_EXAMPLES = 2_000  #: Of a balanced prompt: it goes with every text.
POOL_PER_LABEL, MAX_POOL = 100, 20_000  #: What the nearest examples are chosen from.


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
        shown["examples"] = sample_examples(train, schema, spec.shots, MAX_EXAMPLES)
    return shown


def is_nearest(spec: TrainSpec) -> bool:
    """Whether a prompt shows the examples that are nearest to its text."""
    return spec.shots > 0 and spec.shot_selection == "nearest"


def needs_vectors(spec: TrainSpec) -> bool:
    """Whether a part of the prompt is chosen by vectors."""
    return is_nearest(spec) or spec.candidates is not None


def sample_examples(
    train: StoredFile | None, schema: LabelSchema, per_label: int, max_rows: int
) -> list[dict[str, Any]]:
    """Rows of each label, chosen at random. Raises InvalidInput: there are none."""
    if train is None:
        raise InvalidInput("the dataset has no rows to take examples from")
    return sample_per_label(read_rows(train), schema, per_label, max_rows)


def texts_to_embed(
    spec: TrainSpec, schema: LabelSchema, split_file: Callable[[str], StoredFile | None]
) -> Iterator[list[str]]:
    """Examples; where prompts name the nearest labels also these, and validation, to see how often they are right."""
    pool = pool_rows(spec, schema, split_file("train"))
    for start in range(0, len(pool), BLOCK_ROWS):
        yield [text for text, _ in pool[start : start + BLOCK_ROWS]]
    if spec.candidates is None:
        return
    yield label_texts(schema, spec.descriptions)
    if (validation := split_file("validation")) is not None:
        for block in in_blocks(read_rows(validation)):
            yield [text for text, _ in block]


def pool_rows(spec: TrainSpec, schema: LabelSchema, train: StoredFile | None) -> list[Row]:
    """The rows that the nearest examples are chosen from."""
    if not is_nearest(spec) and train is None:
        return []  # labels alone, by their names
    return [(row["text"], row["labels"]) for row in sample_examples(train, schema, POOL_PER_LABEL, MAX_POOL)]
