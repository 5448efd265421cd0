"""Trials of a prompt on rows of validation, by batches of the bulk engine: how many texts go into one request, and from
which score on its answers are believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.errors import Permanent
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.core.database import writing
from labelmill.core.money.token_counts import count_all
from labelmill_worker.inference.models.prompt import usual_answer_tokens
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.strategies.chat_prompt import ChatPrompt
from labelmill_worker.store.inner_batches import InnerBatch, read_inner_batch, read_requests, read_scores
from labelmill_worker.store.inner_models import trial_model
from labelmill_worker.train.dataset_rows import Row
from labelmill_worker.train.heads.decisions import Wanted, choose_thresholds
from labelmill_worker.train.inner_batch import named_batches, require_completed, run_named_batch
from labelmill_worker.train.left_out import LeftOut, left_out_of_batch
from labelmill_worker.train.pinning import meant_model
from labelmill_worker.train.step_context import NextPoll, StepContext
from labelmill_worker.train.texts_per_prompt import (
    Choice,
    Trial,
    choose,
    nothing_to_try,
)
from labelmill_worker.train.trial_rows import most_texts, numbers_of_texts, rows_to_try

_BLOCK_ROWS = 1_000


@dataclass(frozen=True)
class Trials:
    """The trials of one training, on the rows of validation that have different texts."""

    step: StepContext
    schema: LabelSchema
    recipe: Mapping[str, Any]

    @cached_property
    def rows(self) -> Sequence[Row]:
        """The rows that are asked about."""
        return rows_to_try(self.step.split_file("validation"))

    @property
    def at_most(self) -> int:
        """Texts in a prompt whose longest answers fit."""
        return most_texts(self.recipe, self.schema)

    @cached_property
    def numbers(self) -> Sequence[int]:
        """The numbers of texts that are tried, smallest first."""
        return numbers_of_texts(self.step.spec, len(self.rows), self.at_most)

    def estimate(self) -> tuple[int, float | None]:
        """About how many tokens all trials take, and what they cost in USD; None: the price is not known."""
        model, texts = self.step.spec.base_model, [text for text, _ in self.rows]
        output = usual_answer_tokens(self.schema) * len(texts)
        tokens, amount = 0, 0.0
        for number in self.numbers:
            version = ModelVersion("", "prompt", model, self.schema, self.recipe)
            strategy = ChatPrompt(version, None, texts_per_prompt=number)
            of_trial = sum(request.tokens for request in strategy.plan(range(len(texts)), texts))
            cost = self.step.prices.cost_of(model, max(0, of_trial - output), output)
            if cost is None:
                return tokens, None
            tokens, amount = tokens + of_trial, amount + cost["amount"]
            if (embedding_model := self.recipe.get("embedding_model")) is not None:
                vectors = self.step.prices.cost_of(embedding_model, count_all(texts))
                amount += vectors["amount"] if vectors else 0.0
        return tokens, round(amount, 8)

    def run(self) -> NextPoll | tuple[Choice | None, dict[str, Any], dict[str, Any], LeftOut]:
        """Bring the trials on. Returns when to poll again, or: the number of texts that is taken (None: it was given),
        the thresholds, what was found of them by target, and the rows that thresholds were chosen without. Raises
        Permanent."""
        trials: dict[int, InnerBatch] = {}
        for number in self.numbers:
            batch = self._batch(number)
            if not isinstance(batch, InnerBatch):
                return batch
            require_completed(batch)
            trials[number] = batch
        choice = None
        if self.step.spec.texts_per_prompt == "auto":
            choice = nothing_to_try(len(self.rows), self.at_most)
            if len(trials) > 1:
                choice = choose([self._trial(*trial) for trial in trials.items()], len(trials) - 1)
        if not self.step.spec.target_precision:
            return choice, {}, {}, LeftOut()  # a row without an answer counts as wrong
        number = choice.texts if choice else self.numbers[0]
        return choice, *self._thresholds(trials[number]), left_out_of_batch(self.step, trials[number])

    def _batch(self, number: int) -> InnerBatch | NextPoll:
        step, name = self.step, f"{number} texts a prompt"
        batches = named_batches(step)
        if name in batches and (batch := read_inner_batch(step.engine, batches[name])).has_ended:
            return batch
        asked = meant_model(step)  # the first trial's stays that of all
        with writing(step.engine) as connection:
            model_no = trial_model(connection, step.row.id, asked, self.schema, dict(self.recipe))
        return run_named_batch(step, name, model_no, name, self._blocks, texts_per_prompt=number)

    def _blocks(self) -> list[list[str]]:
        texts = [text for text, _ in self.rows]
        return [texts[start : start + _BLOCK_ROWS] for start in range(0, len(texts), _BLOCK_ROWS)]

    def _trial(self, number: int, batch: InnerBatch) -> Trial:
        right = {}
        for at, target in enumerate(self.schema.targets):
            scores, truth, answered = self._answers(batch, at, target)
            given = scores >= 0.5 if target.multi else np.eye(len(target.labels), dtype=bool)[scores.argmax(axis=1)]
            right[target.name] = (given == truth).all(axis=1) & answered
        return Trial(number, right, read_requests(self.step.engine, batch.no), batch.tokens)

    def _answers(
        self, batch: InnerBatch, at: int, target: Target
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """Scores and truth (rows, labels) of the rows with a label for the target, and which have an answer."""
        found = dict(read_scores(self.step.engine, batch.no, at, batch.rows))
        known = [number for number, (_, labels) in enumerate(self.rows) if labels.get(target.name) is not None]
        places = {label: place for place, label in enumerate(target.labels)}
        scores = np.zeros((len(known), len(target.labels)), np.float32)
        truth = np.zeros(scores.shape, bool)
        for place, number in enumerate(known):
            if number in found:
                scores[place] = found[number]
            value = self.rows[number][1][target.name]
            for label in value if isinstance(value, list) else [value]:
                if label in places:
                    truth[place, places[label]] = True
        return scores, truth, np.array([number in found for number in known], bool)

    def _thresholds(self, batch: InnerBatch) -> tuple[dict[str, Any], dict[str, Any]]:
        """Those that certify the precision that was asked for, and what was found by target."""
        wanted = Wanted(precisions=self.step.spec.target_precision)
        thresholds, found = dict[str, Any](), dict[str, Any]()
        for at, target in enumerate(self.schema.targets):
            if target.multi or not wanted.asks_precision_of(target):
                continue
            scores, truth, answered = self._answers(batch, at, target)
            chosen = choose_thresholds(scores[answered], truth[answered], target, wanted, unseen=True)
            thresholds[target.name] = chosen.thresholds
            found[target.name] = {"precisions": chosen.precisions}
            for precision in chosen.precisions:
                self.step.note(precision["said"])
        return thresholds, found


def require_probabilities(step: StepContext, *, logprobs: bool) -> None:
    """Raise Permanent where a precision is asked for of scores that are 1 and 0."""
    if step.spec.target_precision and not logprobs:
        raise Permanent(
            f"no precision can be certified: {step.spec.base_model} tells no log-probabilities, so its labels score 1 "
            "and 0. Leave --target-precision out, or choose another model with --model",
            code="invalid_input",
        )
