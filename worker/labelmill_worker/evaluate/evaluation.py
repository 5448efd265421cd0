"""The steps of an evaluation: its splits become batches of the bulk engine, then answers meet the truth."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from sqlalchemy.engine import Engine

from labelmill.contracts.calibration import temperatures_of
from labelmill.contracts.chats import text_of_row
from labelmill.contracts.documents.parts import Cost
from labelmill.contracts.errors import BrokerUnavailable, Permanent
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.specs import ClassifySpec, EvaluateSpec
from labelmill.contracts.states import BatchState
from labelmill.core.database import reading
from labelmill.core.database.tables import DatasetRow, EvaluationRow, ModelRow
from labelmill.core.jobs.dispatch import dispatch_batch
from labelmill.core.money.costs import cost_of_texts, per_1000, priced_model
from labelmill.core.money.ledger import costs_of_batches
from labelmill.core.money.prices import PriceList
from labelmill.core.queue.sender import MessageSender
from labelmill.core.storage.base import ReadableFile, Storage, StoredFile
from labelmill.core.storage.references import batch_source
from labelmill_worker.evaluate.measure import (
    ClassifiedSplit,
    FittedTemperature,
    SplitMetrics,
    fit_temperatures,
    measure,
)
from labelmill_worker.evaluate.rescaled_thresholds import rescaled_thresholds
from labelmill_worker.evaluate.temperature import Scale
from labelmill_worker.evaluate.truth import read_split
from labelmill_worker.process.ability import Ability
from labelmill_worker.store import evaluations
from labelmill_worker.store.evaluations import BatchColumn, Calibrated, SplitBatchFacts
from labelmill_worker.store.inner_batches import InnerBatch, fill_inner_batch, read_inner_batch
from labelmill_worker.store.jobs import read_job, require_held
from labelmill_worker.store.split_files import split_file

_BLOCK = 4096
CALIBRATION_SPLIT = "validation"


@dataclass(frozen=True)
class EvaluateContext:
    """What an evaluation works with."""

    engine: Engine
    sender: MessageSender
    ability: Ability
    storage: Storage
    lease_s: float
    prices: PriceList


def batches_of(job: EvaluationRow) -> dict[BatchColumn, str]:
    """The batches that an evaluation needs, and the split of each."""
    wanted: dict[BatchColumn, str] = {"batch_id": job.split}
    if _spec_of(job).calibrate:
        wanted["calibration_batch_id"] = CALIBRATION_SPLIT
    return wanted


def begin(context: EvaluateContext, job: EvaluationRow, token: str) -> None:
    """Submit the splits as batches, once: a later attempt finds those that an earlier one opened."""
    spec = _spec_of(job)
    guard = partial(require_held, table=EvaluationRow, job_id=job.id, token=token)
    for place, split in batches_of(job).items():
        file = _file(context, job, split)
        holds_chats = "messages" in next(read_split(file), {})
        column = "messages" if holds_chats else "text"
        source = batch_source(file.reference)
        batch_spec = ClassifySpec(
            source=source,
            text=column,
            multi=spec.multi,
            chats=holds_chats,
            # a temperature is fitted to scores without any
            temperatures={} if place == "calibration_batch_id" else spec.temperatures,
            model_thresholds=spec.thresholds or {},
        )
        batch = evaluations.open_batch(context.engine, job.id, token, place, batch_spec, spec.mode)
        if batch.state == BatchState.SUBMITTING.value:
            fill_inner_batch(context.engine, batch.no, batch.id, _blocks(file), guard)
        with contextlib.suppress(BrokerUnavailable):  # recovery sends it
            dispatch_batch(context.engine, context.sender, batch.id)


def _blocks(split: ReadableFile) -> Iterator[list[str]]:
    rows = map(text_of_row, read_split(split))
    while block := list(islice(rows, _BLOCK)):
        yield block


def have_ended(context: EvaluateContext, job: EvaluationRow) -> bool:
    """Whether all of its batches go no further by themselves. Raises the reason of one that did not complete."""
    batches = [_batch(context, job, column) for column in batches_of(job)]
    ended = all(batch.has_ended for batch in batches)
    for batch in batches:
        if not batch.has_ended or batch.state == BatchState.COMPLETED.value:
            continue
        if batch.state == BatchState.PAUSED.value and not ended:
            continue  # the other one shares its cap: it comes to an end too, and what it is answered is kept
        why = f"its batch {batch.id} ended {batch.state}: {batch.error or 'no reason is known'}"
        raise Permanent(why, code=batch.error_code)
    return ended


def has_begun(job: EvaluationRow) -> bool:
    """Whether each of its batches was submitted."""
    return all(getattr(job, column) is not None for column in batches_of(job))


def conclude(context: EvaluateContext, job: EvaluationRow, token: str, check: Callable[[], None]) -> None:
    """Measure, and record it. `check` raises once nothing more may be written. Raises Permanent."""
    model = evaluations.read_model(context.engine, job.model_no)
    schema = LabelSchema.from_json(model.label_schema or [])
    if not schema.targets:
        raise Permanent("no text was answered, so the model's labels are not known: nothing can be measured")
    spec, calibration = _spec_of(job), model.calibration
    new: dict[str, FittedTemperature] = {}
    if spec.calibrate:
        split = _classified(context, job, schema, "calibration_batch_id", CALIBRATION_SPLIT)
        source = {"dataset": job.dataset_ref, "split": CALIBRATION_SPLIT, "evaluation": job.id, "applied": True}
        new = fit_temperatures(split, check)
        calibration = (calibration or {}) | {name: one.report | source for name, one in new.items()} or None
    train = _split_file(context, model.dataset_id, "train")
    split = _classified(context, job, schema, "batch_id", job.split)
    scales = {
        name: Scale(one["temperature"], one["temperature"] / spec.temperatures.get(name, 1.0))
        for name, one in (calibration or {}).items()
    }
    measured = measure(split, scales, train if train and train.exists() else None, check)
    facts = evaluations.batch_facts(context.engine, split.batch_no)
    with reading(context.engine) as connection:
        paid = costs_of_batches(connection, {str(job.batch_id): job.id}).get(str(job.batch_id))
    evaluations.complete(
        context.engine,
        job,
        token,
        metrics=measured.metrics,
        analysis=measured.analysis,
        summary=_summary(measured, facts, paid, model, schema, calibration, context.prices),
        recalibrate=partial(_recalibrated, schema, new, calibration or {}) if new else None,
    )


def _recalibrated(
    schema: LabelSchema, new: dict[str, FittedTemperature], found: dict[str, Any], model: Calibrated
) -> Calibrated:
    """The version's calibration and thresholds with what was found, from those that it has by now."""
    calibration = (model.calibration or {}) | {name: found[name] for name in new}
    scales = {name: one.scale for name, one in new.items()}
    before = temperatures_of(model.calibration)
    return Calibrated(calibration, rescaled_thresholds(model.thresholds, schema, before, scales))


def _summary(
    measured: SplitMetrics,
    facts: SplitBatchFacts,
    paid: Cost | None,
    model: ModelRow,
    schema: LabelSchema,
    calibration: dict[str, Any] | None,
    prices: PriceList,
) -> dict[str, Any]:
    texts = facts.rows - facts.duplicates
    tokens = facts.tokens or measured.tokens  # of classifications Mistral reports none
    priced = priced_model(model.remote_model or "", prices)
    cost = cost_of_texts(priced, model.method, tokens, texts, schema, prices)
    as_of = prices.as_of(priced) if cost else None
    if paid is not None and paid["amount"] is not None:
        cost, as_of = {"amount": paid["amount"], "currency": paid["currency"]}, paid.get("prices_as_of")
    return {
        "rows": measured.rows,
        "answered": facts.rows - facts.failed,
        "failed": facts.failed,
        "failures": facts.failures,
        "duplicates": facts.duplicates,
        "seen_in_training": measured.seen,
        "requests": facts.requests,
        "tokens": tokens,
        "tokens_are": "reported" if facts.tokens else "counted",
        "cost": cost,
        "cost_per_1000": per_1000(cost, texts),
        "prices_as_of": as_of,
        "seconds": facts.seconds,
        "seconds_per_1000": facts.seconds * 1000 / texts if facts.seconds is not None and texts else None,
        "calibration": calibration,
    }


def _spec_of(job: EvaluationRow) -> EvaluateSpec:
    return EvaluateSpec.read(job.options or {})


def _file(context: EvaluateContext, job: EvaluationRow, split: str) -> StoredFile:
    file = _split_file(context, job.dataset_id, split)
    if file is None:
        raise Permanent(f"the dataset's split {split!r} is gone")
    return file


def _split_file(context: EvaluateContext, dataset_id: str | None, split: str) -> StoredFile | None:
    dataset = read_job(context.engine, DatasetRow, dataset_id) if dataset_id else None
    return split_file(context.storage, dataset, split) if dataset else None


def _batch(context: EvaluateContext, job: EvaluationRow, column: BatchColumn) -> InnerBatch:
    return read_inner_batch(context.engine, str(getattr(job, column)))


def _classified(
    context: EvaluateContext, job: EvaluationRow, schema: LabelSchema, column: BatchColumn, split: str
) -> ClassifiedSplit:
    batch = _batch(context, job, column)
    return ClassifiedSplit(context.engine, batch.no, schema, _file(context, job, split))
