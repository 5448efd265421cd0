"""Quotes of batches. Nothing is written: a model id that is new here is looked up and forgotten again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import cast

from labelmill.contracts.documents.money import QuoteDocument, QuoteOption
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.specs import ClassifySpec
from labelmill.core.chunks.distinct import DistinctTexts
from labelmill.core.chunks.sizes import CHUNK_TEXTS
from labelmill.core.database import reading
from labelmill.core.database.tables import ModelRow
from labelmill.core.model_limits import ModelLimit
from labelmill.core.money.tokenizers import TokenCounter
from labelmill.core.readers import detect_sources, inputs_of, read_text_blocks
from labelmill.core.remote_models import names_of, read_list
from labelmill.core.reported_limits import known_limits
from labelmill.services.batches import ClassifyRequest, check_model, check_request
from labelmill.services.context import ServiceContext
from labelmill.services.models import ref_of, resolve_model
from labelmill.services.submissions.skipped_rows import RefusedRows, SkippedRows
from labelmill_ops.quote.tally import AccountLimits, CallTally
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.strategies import strategy_for
from labelmill_worker.inference.strategies.strategy import Strategy

#: Of one text, by the beginning of the model's name.
_MAX_TOKENS = {"mistral-embed": 8_192}


@dataclass(frozen=True)
class QuoteContext:
    """What a quote is made with."""

    services: ServiceContext
    counter: TokenCounter
    limits: AccountLimits
    texts_per_request: int


@dataclass
class Counted:
    """Of a source or a dataset: its rows, and the texts that would be sent."""

    rows: int = 0
    texts: int = 0
    too_long: int = 0  #: Texts that the model is certain to refuse.
    refused: int = 0  #: Texts that Mistral has refused before: a training leaves them out.


def quote_batch(context: QuoteContext, request: ClassifyRequest) -> QuoteDocument:
    """What classifying a source would cost, in each mode. Raises NotFound, InvalidInput."""
    check_request(request)
    model = _model(context, request.model)
    check_model(context.services, request, model)
    strategy = _strategy(context, model, request.spec)
    tally, counted = CallTally(strategy, context.counter), Counted()
    texts = distinct_of(_texts(request.spec), counted)
    for chunk in chunks_of(without_too_long(texts, model.remote_model or "", context.counter, counted)):
        tally.add(chunk)
    prices, limits = context.services.prices, limits_in_force(context)
    options = [
        cast("QuoteOption", {"mode": mode, **tally.option(prices, limits, mode=mode)}) for mode in ("realtime", "batch")
    ]
    return {
        "kind": "batch",
        "model": ref_of(model),
        "rows": counted.rows,
        "texts": counted.texts,
        "too_long": counted.too_long,
        "refused": counted.refused,
        "options": options,
    }


def limits_in_force(context: QuoteContext) -> AccountLimits:
    """The limits that are set, and those that Mistral told workers where they are lower."""
    with reading(context.services.engine) as connection:
        told, listed = known_limits(connection), read_list(connection)
    of_models: dict[str, ModelLimit] = {}
    for model, limit in (context.limits.of_models or {}).items():
        for name in names_of(model, listed):
            of_models[name] = _lower_of_both(of_models.get(name), limit)
    for model, known in told.items():
        limit = ModelLimit(known.requests_per_minute, known.tokens_per_minute)
        of_models[model] = _lower_of_both(of_models.get(model), limit)
    return replace(context.limits, of_models=of_models)


def _lower_of_both(left: ModelLimit | None, right: ModelLimit) -> ModelLimit:
    if left is None:
        return right
    return ModelLimit(
        _lower(left.requests_per_minute, right.requests_per_minute),
        _lower(left.tokens_per_minute, right.tokens_per_minute),
    )


def _lower(left: float | None, right: float | None) -> float | None:
    return min(left, right) if left and right else left or right


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


def distinct_of(blocks: Iterable[list[str]], counted: Counted) -> Iterator[str]:
    """The texts that would be sent: each once, and none that is blank."""
    distinct = DistinctTexts()
    for block in blocks:
        counted.rows += len(block)
        for text, first in zip(block, distinct.first_rows(block).tolist(), strict=True):
            if first < 0 and text and not text.isspace():
                counted.texts += 1
                yield text


def without_too_long(texts: Iterable[str], model: str, counter: TokenCounter, counted: Counted) -> Iterator[str]:
    """Those of the texts that are not longer than the model takes. An estimate of their tokens refuses none."""
    at_most = next((tokens for name, tokens in _MAX_TOKENS.items() if model.startswith(name)), None)
    if at_most is None or counter.tokens_by == "estimate":
        yield from texts
        return
    for text in texts:
        # a character has four tokens at most: few texts are counted twice
        if len(text) * 4 > at_most and counter.of_text(text) > at_most:
            counted.texts -= 1
            counted.too_long += 1
        else:
            yield text


def chunks_of(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts as they would be cut into chunks."""
    chunk: list[str] = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == CHUNK_TEXTS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
