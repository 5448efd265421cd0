"""Quotes of trainings, by each method. Nothing is written, and nobody is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from sqlalchemy import select

from labelmill.contracts.documents.money import QuoteDocument, QuoteOption
from labelmill.contracts.inner_methods import LOGPROBS, VECTORS
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.specs import BASE_MODELS, EMBEDDING_MODEL, TrainSpec
from labelmill.contracts.states import Mode
from labelmill.contracts.text_digests import digest_of
from labelmill.core.database import reading
from labelmill.core.database.tables import DatasetRow, ModelRow
from labelmill.core.storage.base import StoredFile
from labelmill.services.trainings import TrainRequest, checked_dataset, checked_spec
from labelmill_ops.quote.quoting import Counted, QuoteContext, chunks_of, distinct_of, limits_in_force, without_too_long
from labelmill_ops.quote.tally import CallTally
from labelmill_worker.inference.models.nearest_labels import longest_labels
from labelmill_worker.inference.models.prompt import has_labels_of
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.strategies import strategy_for
from labelmill_worker.inference.strategies.chat_prompt import ChatPrompt
from labelmill_worker.inference.strategies.logprobs_check import CHECK_SCHEMA, CHECK_TEXT
from labelmill_worker.inference.strategies.strategy import Strategy
from labelmill_worker.store.inner_models import tells_logprobs
from labelmill_worker.store.refused_texts import refused_texts
from labelmill_worker.store.split_files import split_file
from labelmill_worker.store.vectors import known_digests
from labelmill_worker.train.dataset_rows import in_blocks, read_rows
from labelmill_worker.train.factory.remote_job import SPLITS
from labelmill_worker.train.prompt_parts import needs_vectors, prompt_recipe, shown_at_random, texts_to_embed
from labelmill_worker.train.trial_rows import most_texts, numbers_of_texts, rows_to_try


def quote_training(context: QuoteContext, request: TrainRequest) -> QuoteDocument:
    """What a training would cost by each method, the one that was asked for first. Raises NotFound, InvalidInput for
    whatever `train` refuses."""
    spec = checked_spec(request, context.services.prices)
    with reading(context.services.engine) as connection:
        dataset = checked_dataset(connection, request, spec)
    asked, option = _QuotedMethod(context, dataset, request.method, spec).quote()
    options = [option]
    for method in sorted(BASE_MODELS.keys() - {request.method}):
        other = TrainSpec(mode=spec.mode, base_model=BASE_MODELS[method])
        options.append(_QuotedMethod(context, dataset, method, other).quote()[1])
    return {
        "kind": "training",
        "model": spec.base_model,
        "rows": asked.rows,
        "texts": asked.texts,
        "too_long": asked.too_long,
        "refused": asked.refused,
        "options": options,
    }


class _QuotedMethod:
    def __init__(self, context: QuoteContext, dataset: DatasetRow, method: str, spec: TrainSpec) -> None:
        self._context, self._dataset, self._method, self._spec = context, dataset, method, spec
        self._schema = LabelSchema.from_json(dataset.label_schema or [])

    def quote(self) -> tuple[Counted, QuoteOption]:
        """The texts to embed, less those that have a vector or were refused one, and what all requests would cost. A
        fine-tuning's price is Mistral's, which it names later."""
        counted = Counted()
        model = EMBEDDING_MODEL if self._method == "prompt" else self._spec.base_model
        tally = self._tally(self._embedding(model, self._context.texts_per_request))
        texts = self._without_vector(model, distinct_of(self._texts_to_embed(), counted), counted)
        for chunk in chunks_of(without_too_long(texts, model, self._context.counter, counted)):
            tally.add(chunk)
        if self._method == "prompt":
            for part in (self._logprobs_question(), *self._trials()):
                tally.include(part)
        option = tally.option(self._context.services.prices, limits_in_force(self._context), mode=self._spec.mode)
        if self._method == "factory":
            option["cost"] = None
            option["tokens_by"] = "estimate"
        return counted, cast("QuoteOption", {"method": self._method, **option})

    def _texts_to_embed(self) -> Iterator[list[str]]:
        if self._method == "embedding":
            for split in SPLITS:
                if (file := self._file(split)) is not None:
                    yield from ([text for text, _ in block] for block in in_blocks(read_rows(file)))
        elif self._method == "prompt" and needs_vectors(self._spec):
            yield from texts_to_embed(self._spec, self._schema, self._file)
            if self._keeps_vectors_of_trials:
                yield self._texts_to_try()

    @property
    def _keeps_vectors_of_trials(self) -> bool:
        """By batch jobs a text is embedded once, for all trials; in realtime every request embeds its own."""
        return self._spec.mode == Mode.BATCH.value

    def _logprobs_question(self) -> CallTally:
        """The question whether the model's server tells log-probabilities, unless it was asked before."""
        model = self._spec.base_model
        tally = self._tally(self._strategy(ModelVersion(model, LOGPROBS, model, CHECK_SCHEMA, {})))
        if tells_logprobs(self._context.services.engine, model) is None:
            tally.add([CHECK_TEXT])
        return tally

    def _trials(self) -> Iterator[CallTally]:
        """The trials of the prompt on validation. Labels and examples that are chosen by vectors are not known: those
        that are counted take at least as much room, or about as much."""
        spec, texts = self._spec, self._texts_to_try()
        if not texts:
            return
        train = self._file("train")
        recipe = prompt_recipe(spec, self._schema, train) | shown_at_random(spec, self._schema, train)
        for number in numbers_of_texts(spec, len(texts), most_texts(recipe, self._schema)):
            schema, of_number = self._schema, dict(recipe)
            if (candidates := of_number.pop("candidates", None)) is not None:
                schema = longest_labels(schema, spec.descriptions, candidates * number)
                examples = [example for example in recipe.get("examples", ()) if has_labels_of(example, schema)]
                of_number |= prompt_recipe(spec.model_copy(update={"candidates": None}), schema, train)
                of_number |= {"examples": examples}
            version = ModelVersion("", "prompt", spec.base_model, schema, of_number)
            tally = self._tally(ChatPrompt(version, None, texts_per_prompt=number), is_estimated=needs_vectors(spec))
            tally.add(texts)
            yield tally
            if needs_vectors(spec) and not self._keeps_vectors_of_trials:
                vectors = self._tally(self._embedding(EMBEDDING_MODEL, number))
                vectors.add(texts)
                yield vectors

    def _texts_to_try(self) -> list[str]:
        if self._spec.texts_per_prompt != "auto" and not self._spec.target_precision:
            return []
        return [text for text, _ in rows_to_try(self._file("validation"))]

    def _tally(self, strategy: Strategy, *, is_estimated: bool = False) -> CallTally:
        return CallTally(strategy, self._context.counter, is_estimated=is_estimated)

    def _embedding(self, model: str, texts_per_request: int) -> Strategy:
        return self._strategy(ModelVersion(model, VECTORS, model, None, {}), texts_per_request)

    def _strategy(self, version: ModelVersion, texts_per_request: int = 1) -> Strategy:
        return strategy_for(version, {}, storage=self._context.services.storage, texts_per_request=texts_per_request)

    def _file(self, split: str) -> StoredFile | None:
        if (self._dataset.splits or {}).get(split) == 0:
            return None
        return split_file(self._context.services.storage, self._dataset, split)

    def _without_vector(self, model: str, texts: Iterable[str], counted: Counted) -> Iterator[str]:
        engine = self._context.services.engine
        with reading(engine) as connection:
            number = connection.scalar(
                select(ModelRow.no).where(ModelRow.method == VECTORS, ModelRow.remote_model == model)
            )
        refused: set[bytes] = set()
        if number is not None:
            with reading(engine) as connection:
                refused = set(refused_texts(connection, number))
        for chunk in chunks_of(texts):
            known: set[bytes] = set()
            if number is not None:
                with reading(engine) as connection:
                    known = set(known_digests(connection, number, map(digest_of, chunk)))
            for text in chunk:
                if (digest := digest_of(text)) in known:
                    counted.texts -= 1
                elif digest in refused:
                    counted.texts -= 1
                    counted.refused += 1
                else:
                    yield text
