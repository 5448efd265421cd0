"""The method `embedding`: vectors by Mistral, a linear head of our own.

queued → validating (count what is not yet embedded, weigh the cost) → running (a batch of the bulk engine embeds; then
the head is fitted on a worker) → succeeded. Vectors are kept by text: a training that died, or another one on the same
texts, pays for none of them again.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from sqlalchemy.engine import Connection

from labelmill.contracts.amounts import written
from labelmill.contracts.documents.parts import Cost
from labelmill.contracts.errors import InvalidInput, Permanent
from labelmill.contracts.inner_methods import VECTORS
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.states import TrainingState
from labelmill.contracts.text_digests import digest_of
from labelmill.core.chunks.distinct import DistinctTexts
from labelmill.core.database import reading, writing
from labelmill.core.database.analysis_codec import save_analysis
from labelmill.core.database.tables import TrainingRow
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.money.ledger import costs_of_jobs
from labelmill.core.money.prices import CURRENCY
from labelmill.core.money.token_counts import count_all
from labelmill.core.storage.references import MODELS, model_file
from labelmill_worker.evaluate.measure import add_texts
from labelmill_worker.store import vectors
from labelmill_worker.store.inner_batches import InnerBatch, first_row_error
from labelmill_worker.store.inner_models import embedding_model
from labelmill_worker.store.jobs import read_job
from labelmill_worker.store.models import register_version
from labelmill_worker.store.refused_texts import refused_texts
from labelmill_worker.store.trainings import update_held
from labelmill_worker.store.transitions import move_job
from labelmill_worker.train.dataset_rows import holds_chats, in_blocks, read_rows
from labelmill_worker.train.factory.remote_job import SPLITS, may_start
from labelmill_worker.train.heads.decisions import Wanted
from labelmill_worker.train.heads.fit import fit_head
from labelmill_worker.train.heads.vector_rows import VectorRows, write_vector_rows
from labelmill_worker.train.inner_batch import named_batches, require_completed, run_named_batch
from labelmill_worker.train.left_out import left_out_of_vectors
from labelmill_worker.train.pinning import pinned
from labelmill_worker.train.polling_schedule import next_poll_s
from labelmill_worker.train.step_context import NextPoll, StepContext

log = structlog.get_logger()


def begin(step: StepContext) -> NextPoll:
    """queued → validating."""
    step.move(TrainingState.VALIDATING, "counts what is to be embedded")
    return 0.0


def validate(step: StepContext) -> NextPoll:
    """validating → running or awaiting_approval: what it would cost."""
    if step.split_file("train") is None:
        raise InvalidInput("the dataset has no rows to train on")
    with step.long_slot():
        return weigh(step, step.spec.base_model, texts_of(step))


def weigh(step: StepContext, model: str, blocks: Iterator[list[str]]) -> NextPoll:
    """Count the tokens of texts that have no vector yet; start, or wait for a person's word."""
    return start_or_wait(step, count_unembedded(step, model, blocks))


@dataclass(frozen=True)
class Needed:
    """What a training has to pay for. `amount`: USD; None: the price is not known. `said`: for people."""

    texts: int
    tokens: int
    amount: float | None
    said: str


def count_unembedded(step: StepContext, model: str, blocks: Iterator[list[str]]) -> Needed:
    """The texts that have no vector yet."""
    texts = tokens = 0
    for block in unembedded(step, model, blocks):
        texts += len(block)
        tokens += count_all(block)
    price = step.prices.cost_of(model, tokens)
    amount = 0.0 if not texts else price["amount"] if price else None
    return Needed(
        texts, tokens, amount, f"{texts:,} {'text' if texts == 1 else 'texts'} of about {tokens:,} tokens to embed"
    )


def start_or_wait(step: StepContext, needed: Needed) -> NextPoll:
    """validating → running, or awaiting_approval where so much was not allowed yet."""
    amount, said = needed.amount, needed.said
    if amount is not None:
        step.save(
            estimate={"amount": amount, "currency": CURRENCY, "texts": needed.texts, "tokens": needed.tokens},
        )
    said += f", about {written(amount)} USD" if amount is not None else "; the price of the model is not known"
    if amount == 0 or may_start(amount, step.row.max_cost, approved=step.row.approved):
        step.move(TrainingState.RUNNING, f"starts; {said}")
        return 0.0
    cap = step.row.max_cost
    why = "no cost was allowed yet" if cap is None else f"only {cap:g} was allowed"
    step.move(TrainingState.AWAITING_APPROVAL, f"waits for approval: {said}; {why}")
    return next_poll_s(TrainingState.AWAITING_APPROVAL, 0, step.poll_s)


def await_approval(step: StepContext) -> NextPoll:
    """awaiting_approval → running, once a person said yes."""
    if not step.row.approved:
        return next_poll_s(step.state, 0, step.poll_s)
    step.move(TrainingState.RUNNING, "approved")
    return 0.0


def run(step: StepContext) -> NextPoll:
    """running → succeeded: embed, then fit."""
    wait_s = embed(step, step.spec.base_model, lambda: texts_of(step))
    if wait_s is not None:
        return wait_s
    with step.long_slot(), discarded_if_cancelled(step):
        step.begin_phase("fitting")
        recipe, thresholds, details, analysis = fit(step)
        succeed(step, recipe, thresholds, details, analysis)
    return None


def embed(step: StepContext, model: str, blocks: Callable[[], Iterator[list[str]]]) -> NextPoll:
    """Bring the batch of vectors on. Returns when to poll again; None: every text that can have a vector has one."""
    if VECTORS not in named_batches(step):
        with step.long_slot():
            first = next(unembedded(step, model, blocks()), None)
        if first is None:
            return None  # nothing to send
    with writing(step.engine) as connection:
        model_no = embedding_model(connection, model)
    batch = run_named_batch(step, VECTORS, model_no, model, lambda: unembedded(step, model, blocks()))
    if not isinstance(batch, InnerBatch):
        return batch
    require_completed(batch)
    if batch.failed:
        _tell_of_failures(step, batch.no, batch.failed)
    return None


def texts_of(step: StepContext) -> Iterator[list[str]]:
    """The texts of every split that a head is fitted or checked on."""
    for split in SPLITS:
        file = step.split_file(split)
        if file is not None:
            for block in in_blocks(read_rows(file)):
                yield [text for text, _ in block]


def unembedded(step: StepContext, model: str, blocks: Iterator[list[str]]) -> Iterator[list[str]]:
    """Those of the texts that have no vector, each once, without those that the model refused before."""
    with writing(step.engine) as connection:
        model_no = embedding_model(connection, model)
    with reading(step.engine) as connection:
        refused = refused_texts(connection, model_no)
    distinct = DistinctTexts()
    for block in blocks:
        step.check()
        first_rows = distinct.first_rows(block).tolist()
        new = {digest_of(text): text for text, first in zip(block, first_rows, strict=True) if first < 0}
        with reading(step.engine) as connection:
            known = vectors.known_digests(connection, model_no, new)
        missing = [text for digest, text in new.items() if digest not in known and digest not in refused]
        if missing:
            yield missing


def vectors_of(step: StepContext, model: str, rows: Iterator[tuple[str, Any]]) -> Iterator[tuple[bytes, Any, str]]:
    """`(vector as stored, labels, text)` of the rows whose text has a vector."""
    with writing(step.engine) as connection:
        model_no = embedding_model(connection, model)
    for block in in_blocks(rows):
        step.check()
        digests = [digest_of(text) for text, _ in block]
        found = vectors.read_vectors(step.engine, model_no, digests)
        for digest, (text, labels) in zip(digests, block, strict=True):
            if digest in found:
                yield found[digest], labels, text


def fit(step: StepContext) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Fit the head and write its file. Returns the recipe, the thresholds, what was found, and what a report draws.
    Raises Permanent, LeaseLost."""
    schema = LabelSchema.from_json(step.dataset.label_schema or [])
    step.confirm_lease()
    try:
        with step.storage.workspace(f"{MODELS}/{step.row.id}") as folder:
            numbers = array("q")
            splits = {
                split: _split_vectors(step, split, schema, folder, numbers if split == "train" else array("q"))
                for split in SPLITS
            }
            train = splits["train"]
            if train is None or not train.count:
                raise Permanent("none of the texts to train on could be embedded")
            log.info("fits the head", rows=train.count)
            fitted = fit_head(
                train,
                splits["validation"],
                schema,
                wanted=Wanted(step.spec.optimize, step.spec.target_precision),
                numbers=np.frombuffer(numbers, np.int64),
                check=step.check,
            )
            if (train_file := step.split_file("train")) is not None:
                add_texts(train_file, fitted.suspects)
    except FileNotFoundError:
        step.confirm_lease()  # another worker that took the training over has deleted our files
        raise
    for target in fitted.report.values():
        for precision in target.get("precisions", ()):
            step.note(precision["said"])
    file = model_file(step.row.id)
    sha256 = fitted.head.save(step.storage, file)
    recipe = {
        "file": file,
        "sha256": sha256,
        "dimensions": fitted.head.dimensions,
        "chats": holds_chats(step.split_file("train")),
    }
    details = {"targets": fitted.report, "left_out": _left_out(step, splits)}
    return recipe, dict(fitted.thresholds), details, {"targets": fitted.suspects}


def _left_out(step: StepContext, splits: Mapping[str, VectorRows | None]) -> dict[str, Any]:
    """The rows that have no vector."""
    rows = sum((step.dataset.splits or {}).get(name) or 0 for name, split in splits.items() if split is not None)
    missing = rows - sum(split.count for split in splits.values() if split is not None)
    return left_out_of_vectors(step, step.spec.base_model, missing, lambda: texts_of(step)).document()


def delete_leftovers(step: StepContext) -> None:
    """Remove what attempts left that were killed as they wrote. One that is only asleep fails, and records nothing."""
    step.storage.delete_leftovers(f"{MODELS}/{step.row.id}")


@contextlib.contextmanager
def discarded_if_cancelled(step: StepContext) -> Iterator[None]:
    """The model's file goes again when the training turns out to have been cancelled meanwhile."""
    try:
        yield
    except LeaseLost:
        row = read_job(step.engine, TrainingRow, step.row.id)
        if row is not None and row.state == TrainingState.CANCELLED.value:
            step.storage.delete(model_file(step.row.id))
        raise


def _split_vectors(
    step: StepContext, split: str, schema: LabelSchema, folder: Path, numbers: array[int]
) -> VectorRows | None:
    """The split's vectors with their labels. `numbers` takes the numbers of the rows that have one."""
    file = step.split_file(split)
    if file is None:
        return None

    def labelled() -> Iterator[tuple[bytes, dict[str, Any]]]:
        numbered = ((text, (number, labels)) for number, (text, labels) in enumerate(read_rows(file)))
        for data, (number, labels), _ in vectors_of(step, step.spec.base_model, numbered):
            numbers.append(number)
            yield data, labels

    return write_vector_rows(folder / f"{split}.f16", schema, labelled())


def succeed(
    step: StepContext,
    recipe: dict[str, Any],
    thresholds: dict[str, Any],
    found: dict[str, Any],
    analysis: dict[str, Any] | None = None,
) -> None:
    """Register the model version and end the training, in one transaction. Raises LeaseLost."""
    remote_model, recipe = pinned(step, recipe)
    details = found or None  # how far the batch is was only of interest while it ran
    with writing(step.engine) as connection:
        update_held(connection, step.row.id, step.token, remote_model=remote_model, details=details)
        if analysis is not None:
            save_analysis(connection, step.row.id, analysis)
        number, version, promoted = register_version(
            connection, step.row, step.dataset, remote_model, recipe=recipe, thresholds=thresholds
        )
        moved = move_job(
            connection,
            step.row.id,
            TrainingState.SUCCEEDED,
            old=TrainingState.RUNNING,
            token=step.token,
            model_no=number,
            cost=_cost(step, connection),
            message=f"made {step.row.name}@{version}{', promoted' if promoted else ''}",
        )
        if not moved:
            raise LeaseLost(f"{step.row.id} was moved by a person or another worker")


def cancel(step: StepContext) -> NextPoll:
    """Any state → cancelled, its batch with it; the vectors that were paid for are kept."""
    step.cancel()
    return None


def _cost(step: StepContext, connection: Connection) -> Cost:
    """What its batches took, by the ledger; nothing where every text had a vector."""
    nothing: Cost = {"amount": 0.0, "currency": (step.row.estimate or {}).get("currency")}
    return costs_of_jobs(connection, [step.row.id]).get(step.row.id, nothing)


def _tell_of_failures(step: StepContext, batch_no: int, failed: int) -> None:
    why = first_row_error(step.engine, batch_no)
    what = "1 text could not be embedded and is" if failed == 1 else f"{failed:,} texts could not be embedded and are"
    step.note(f"{what} left out: {why}")


STEPS: dict[TrainingState, Callable[[StepContext], NextPoll]] = {
    TrainingState.QUEUED: begin,
    TrainingState.VALIDATING: validate,
    TrainingState.AWAITING_APPROVAL: await_approval,
    TrainingState.RUNNING: run,
}
