"""Quotes of batches and trainings. Nothing is written: a model id that is new here is looked up and forgotten again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from sqlalchemy import select

from labelmill.contracts.documents.money import QuoteDocument, QuoteOption
from labelmill.contracts.inner_methods import VECTORS
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.specs import BASE_MODELS, EMBEDDING_MODEL, ClassifySpec, TrainSpec
from labelmill.contracts.text_digests import digest_of
from labelmill.core.chunks.distinct import DistinctTexts
from labelmill.core.chunks.writer import CHUNK_TEXTS
from labelmill.core.database import reading
from labelmill.core.database.tables import DatasetRow, ModelRow
from labelmill.core.money.tokenizers import TokenCounter
from labelmill.core.readers import detect_sources, inputs_of, read_text_blocks
from labelmill.services.batches import ClassifyRequest
from labelmill.services.context import ServiceContext
from labelmill.services.evaluations import ready_dataset
from labelmill.services.models import ref_of, resolve_model
from labelmill.services.submissions.skipped_rows import RefusedRows, SkippedRows
from labelmill.services.trainings import TrainRequest, check_method
from labelmill_ops.quote.tally import AccountLimits, CallTally
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.strategies import strategy_for
from labelmill_worker.inference.strategies.strategy import Strategy
from labelmill_worker.store.datasets import split_file
from labelmill_worker.store.vectors import known_digests
from labelmill_worker.train.dataset_rows import Row, in_blocks, read_rows
from labelmill_worker.train.factory.remote_job import SPLITS
from labelmill_worker.train.prompt import MAX_POOL, POOL_PER_LABEL
from labelmill_worker.train.sampling import sample_per_label


@dataclass(frozen=True)
class QuoteContext:
    """What a quote is made with."""

    services: ServiceContext
    counter: TokenCounter
    limits: AccountLimits
    texts_per_request: int


@dataclass
class _Counted:
    rows: int = 0
    texts: int = 0


def quote_batch(context: QuoteContext, request: ClassifyRequest) -> QuoteDocument:
    """What classifying a source would cost, in each mode. Raises NotFound, InvalidInput."""
    model = _model(context, request.model)
    strategy = _strategy(context, model, request.spec)
    tally, counted = CallTally(strategy, context.counter), _Counted()
    for chunk in _chunks(_distinct(_texts(request.spec), counted)):
        tally.add(chunk)
    prices = context.services.prices
    options = [
        cast("QuoteOption", {"mode": mode, **tally.option(prices, context.limits, mode=mode)})
        for mode in ("realtime", "batch")
    ]
    return {
        "kind": "batch",
        "model": ref_of(model),
        "rows": counted.rows,
        "texts": counted.texts,
        "options": options,
    }


def _model(context: QuoteContext, ref: str) -> ModelRow:
    with context.services.engine.connect() as connection, connection.begin() as transaction:
        model = resolve_model(connection, ref)
        transaction.rollback()
    return model


def _strategy(context: QuoteContext, model: ModelRow, spec: ClassifySpec) -> Strategy:
    schema = LabelSchema.from_json(model.label_schema) if model.label_schema else None
    version = ModelVersion(ref_of(model), model.method, model.remote_model or "", schema, model.recipe or {})
    options = spec.model_dump(mode="json")
    storage = context.services.storage
    return strategy_for(version, options, storage=storage, texts_per_request=context.texts_per_request)


def _texts(spec: ClassifySpec) -> Iterator[list[str]]:
    """The texts of a source, as a submission reads them. Raises InvalidInput."""
    sources = detect_sources(
        inputs_of(spec.source), spec.reading, [spec.text] if spec.id is None else [spec.text, spec.id]
    )
    refused = RefusedRows()
    on_bad_row = SkippedRows() if spec.on_bad_row == "skip" else refused
    for block in refused.none_in(read_text_blocks(sources, spec.text, spec.id, on_bad_row=on_bad_row)):
        yield block.texts


def _distinct(blocks: Iterable[list[str]], counted: _Counted) -> Iterator[str]:
    """The texts that would be sent: each once, and none that is blank."""
    distinct = DistinctTexts()
    for block in blocks:
        counted.rows += len(block)
        for text, first in zip(block, distinct.first_rows(block).tolist(), strict=True):
            if first < 0 and text and not text.isspace():
                counted.texts += 1
                yield text


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == CHUNK_TEXTS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def quote_training(context: QuoteContext, request: TrainRequest) -> QuoteDocument:
    """What a training would cost by each method, the one that was asked for first. Raises NotFound, InvalidInput."""
    check_method(request.method)
    with reading(context.services.engine) as connection:
        dataset = ready_dataset(connection, request.dataset)
    counted = _Counted()
    options = []
    for method in sorted(BASE_MODELS, key=lambda method: method != request.method):
        spec = request.spec if method == request.method else TrainSpec()
        of_method, option = _quote_method(context, dataset, method, spec)
        if method == request.method:
            counted = of_method
        options.append(cast("QuoteOption", {"method": method, **option}))
    base_model = _base_model(request.method, request.spec)
    return {
        "kind": "training",
        "model": base_model,
        "rows": counted.rows,
        "texts": counted.texts,
        "options": options,
    }


def _base_model(method: str, spec: TrainSpec) -> str:
    return spec.base_model if "base_model" in spec.model_fields_set else BASE_MODELS[method]


def _quote_method(
    context: QuoteContext, dataset: DatasetRow, method: str, spec: TrainSpec
) -> tuple[_Counted, QuoteOption]:
    """Texts to embed, less those that have a vector. A fine-tuning's price is Mistral's, which it names later."""
    counted = _Counted()
    model = EMBEDDING_MODEL if method == "prompt" else _base_model(method, spec)
    tally = CallTally(
        strategy_for(
            ModelVersion(model, VECTORS, model, None, {}),
            {},
            storage=context.services.storage,
            texts_per_request=context.texts_per_request,
        ),
        context.counter,
    )
    texts: Iterable[list[str]] = ()
    if method == "embedding":
        splits = (_split(context, dataset, split) for split in SPLITS)
        texts = ([text for text, _ in block] for rows in splits for block in in_blocks(rows))
    elif method == "prompt" and spec.shots and spec.shot_selection == "nearest":
        schema = LabelSchema.from_json(dataset.label_schema or [])
        pool = sample_per_label(_split(context, dataset, "train"), schema, POOL_PER_LABEL, MAX_POOL)
        texts = [[row["text"] for row in pool]]
    for chunk in _chunks(_without_vector(context, model, _distinct(texts, counted), counted)):
        tally.add(chunk)
    option = tally.option(context.services.prices, context.limits)
    if method == "factory":
        option["cost"] = None
        option["tokens_by"] = "estimate"
    return counted, option


def _split(context: QuoteContext, dataset: DatasetRow, split: str) -> Iterator[Row]:
    file = split_file(context.services.storage, dataset, split)
    if file is not None and (dataset.splits or {}).get(split) != 0:
        yield from read_rows(file)


def _without_vector(context: QuoteContext, model: str, texts: Iterable[str], counted: _Counted) -> Iterator[str]:
    with reading(context.services.engine) as connection:
        number = connection.scalar(
            select(ModelRow.no).where(ModelRow.method == VECTORS, ModelRow.remote_model == model)
        )
    for chunk in _chunks(texts):
        known: set[bytes] = set()
        if number is not None:
            with reading(context.services.engine) as connection:
                known = known_digests(connection, number, map(digest_of, chunk))
        for text in chunk:
            if digest_of(text) in known:
                counted.texts -= 1
            else:
                yield text
