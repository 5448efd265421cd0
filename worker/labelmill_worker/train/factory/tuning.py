"""Thresholds of a fine-tuned classifier: those of multi-label targets, and those that a precision was asked of, are
chosen on the validation split, through the engine.

The version exists as `tuning` meanwhile and is in no list. Whatever goes wrong costs the thresholds and not the model:
it is published with the usual ones, or answers nothing where a precision was asked for, and its history says why.
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
from labelmill.core.storage.references import batch_source
from labelmill_worker.store.inner_batches import InnerBatch, open_inner_batch, read_inner_batch, read_scores
from labelmill_worker.store.models import TUNING, register_version
from labelmill_worker.store.trainings import update_held
from labelmill_worker.train.dataset_rows import holds_chats, in_blocks, read_rows
from labelmill_worker.train.heads.decisions import Wanted, choose_thresholds
from labelmill_worker.train.inner_batch import require_completed, submit_inner_batch, wait_for
from labelmill_worker.train.left_out import LeftOut, left_out_of_batch
from labelmill_worker.train.step_context import NextPoll, StepContext


def needs_tuning(step: StepContext) -> bool:
    """Whether the model has targets with thresholds to choose, and there are rows to choose them on."""
    schema, wanted = LabelSchema.from_json(step.dataset.label_schema or []), wanted_of(step)
    some = any(target.multi or wanted.asks_precision_of(target) for target in schema.targets)
    return some and step.split_file("validation") is not None


def wanted_of(step: StepContext) -> Wanted:
    """What was asked of the thresholds."""
    return Wanted(step.spec.optimize, step.spec.target_precision)


def tune(step: StepContext, remote_model: str, recipe: dict[str, Any] | None) -> tuple[NextPoll, dict[str, Any] | None]:
    """Bring the tuning on. Returns when to poll again and None, or None and the thresholds, which may be empty."""
    if step.row.model_no is None:
        with writing(step.engine) as connection:
            number, _, _ = register_version(
                connection, step.row, step.dataset, remote_model, recipe=recipe, state=TUNING
            )
            update_held(connection, step.row.id, step.token, remote_model=remote_model, model_no=number)
        return 0.0, None
    validation = step.split_file("validation")
    if validation is None:
        return None, {}
    if step.row.batch_id is None:
        spec = ClassifySpec(source=batch_source(validation.reference), chats=holds_chats(validation))
        with writing(step.engine) as connection:
            step.require_lease(connection)
            open_inner_batch(
                connection,
                TrainingRow,
                step.row.id,
                step.token,
                model_no=step.row.model_no,
                model_ref=step.row.name,
                spec=spec,
                mode=step.spec.mode,
            )
        return 0.0, None
    batch = read_inner_batch(step.engine, step.row.batch_id)
    if batch.state == BatchState.SUBMITTING.value:
        with step.long_slot():
            submit_inner_batch(
                step, batch.id, ([text for text, _ in block] for block in in_blocks(read_rows(validation)))
            )
        batch = read_inner_batch(step.engine, batch.id)
    try:
        if not batch.has_ended:
            return wait_for(step, batch), None
        require_completed(batch)
        with step.long_slot():
            return None, _thresholds(step, batch)
    except Permanent as error:
        step.note(f"its thresholds are not tuned: {error.message}")
        return None, _thresholds(step, None, error)


def _thresholds(step: StepContext, batch: InnerBatch | None, error: Permanent | None = None) -> dict[str, Any]:
    """Those of each target, by the batch's answers: without any, because of `error`, a target that a precision was
    asked of answers nothing."""
    validation = step.split_file("validation")
    assert validation is not None  # noqa: S101 - there is a batch of its rows
    truth = [labels for _, labels in read_rows(validation)] if batch else []
    schema, wanted = LabelSchema.from_json(step.dataset.label_schema or []), wanted_of(step)
    found: dict[str, Any] = {}
    said: dict[str, Any] = {}
    for number, target in enumerate(schema.targets):
        if not (target.multi or wanted.asks_precision_of(target)):
            continue
        answers = dict(read_scores(step.engine, batch.no, number, batch.rows)) if batch else {}
        known = [row for row in answers if truth[row].get(target.name) is not None]
        shape = (len(known), len(target.labels))
        scores = np.array([answers[row] for row in known], np.float32).reshape(shape)
        present = np.array([_present(truth[row][target.name], target) for row in known], bool).reshape(shape)
        chosen = choose_thresholds(scores, present, target, wanted, unseen=True)
        if chosen.thresholds is not None:
            found[target.name] = chosen.thresholds
        if chosen.precisions:
            said[target.name] = {"precisions": chosen.precisions}
    if batch is not None:
        left_out = left_out_of_batch(step, batch)
    else:
        left_out = LeftOut((step.dataset.splits or {}).get("validation") or 0, error.message if error else None)
    step.save(details={**({"targets": said} if said else {}), "left_out": left_out.document()})
    for precisions in said.values():
        for precision in precisions["precisions"]:
            step.note(precision["said"])
    return found


def _present(labels: list[str] | str, target: Target) -> list[bool]:
    given = labels if isinstance(labels, list) else [labels]
    return [label in given for label in target.labels]
