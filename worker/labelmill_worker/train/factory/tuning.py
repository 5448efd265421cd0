"""Thresholds of a fine-tuned classifier: its multi-label targets are tuned on the validation split, through the engine.

The version exists as `tuning` meanwhile and is in no list. Whatever goes wrong costs the thresholds and not the model:
it is published with the usual ones, and its history says why.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labelmill.contracts.errors import Permanent
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.contracts.specs import ClassifySpec
from labelmill.contracts.states import BatchState
from labelmill.core.database import writing
from labelmill.core.database.tables import TrainingRow
from labelmill_worker.store.inner_batches import InnerBatch, open_inner_batch, read_inner_batch, read_scores
from labelmill_worker.store.models import TUNING, register_version
from labelmill_worker.store.trainings import update_held
from labelmill_worker.train.dataset_rows import holds_chats, in_blocks, read_rows
from labelmill_worker.train.heads.thresholds import tune_thresholds
from labelmill_worker.train.inner_batch import has_ended, require_completed, submit_inner_batch, wait_for
from labelmill_worker.train.poll import Look, NextLook


def needs_tuning(look: Look) -> bool:
    """Whether the model has multi-label targets and there are rows to tune them on."""
    schema = LabelSchema.from_json(look.dataset.label_schema or [])
    return any(target.multi for target in schema.targets) and look.split_path("validation") is not None


def tune(look: Look, remote_model: str, recipe: dict[str, Any] | None) -> tuple[NextLook, dict[str, Any] | None]:
    """Bring the tuning on. Returns when to look again and None, or None and the thresholds, which may be empty."""
    if look.row.model_no is None:
        with writing(look.engine) as connection:
            number, _, _ = register_version(
                connection, look.row, look.dataset, remote_model, recipe=recipe, state=TUNING
            )
            update_held(connection, look.row.id, look.token, remote_model=remote_model, model_no=number)
        return 0.0, None
    path = look.split_path("validation")
    if path is None:
        return None, {}
    if look.row.batch_id is None:
        spec = ClassifySpec(source=look.data.source(path), chats=holds_chats(path))
        with writing(look.engine) as connection:
            look.require_lease(connection)
            open_inner_batch(
                connection,
                TrainingRow,
                look.row.id,
                look.token,
                model_no=look.row.model_no,
                model_ref=look.row.name,
                spec=spec,
            )
        return 0.0, None
    batch = read_inner_batch(look.engine, look.row.batch_id)
    if batch.state == BatchState.SUBMITTING.value:
        with look.long_slot():
            submit_inner_batch(look, batch.id, ([text for text, _ in block] for block in in_blocks(read_rows(path))))
        batch = read_inner_batch(look.engine, batch.id)
    try:
        if not has_ended(batch):
            return wait_for(look, batch), None
        require_completed(batch)
        with look.long_slot():
            return None, _thresholds(look, batch)
    except Permanent as error:
        look.note(f"its thresholds are not tuned: {error.message}")
        return None, {}


def _thresholds(look: Look, batch: InnerBatch) -> dict[str, Any]:
    path = look.split_path("validation")
    assert path is not None  # noqa: S101 - there is a batch of its rows
    truth = [labels for _, labels in read_rows(path)]
    schema = LabelSchema.from_json(look.dataset.label_schema or [])
    found: dict[str, Any] = {}
    for number, target in enumerate(schema.targets):
        if not target.multi:
            continue
        answers = dict(read_scores(look.engine, batch.no, number, batch.rows))
        if answers:
            present = np.array([_present(truth[row].get(target.name), target) for row in answers])
            found[target.name] = tune_thresholds(np.array(list(answers.values())), present, target)
    return found


def _present(labels: list[str] | str | None, target: Target) -> list[bool]:
    given = labels if isinstance(labels, list) else [labels]
    return [label in given for label in target.labels]
