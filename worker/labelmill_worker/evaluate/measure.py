"""Answers meet the truth: read block by block, tallied target by target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy.engine import Engine

from labelmill.contracts.chats import text_of_row, transcript
from labelmill.contracts.label_schema import LabelSchema
from labelmill.core.database import reading
from labelmill.core.database.analysis_codec import pack_bits
from labelmill.core.money.token_counts import count_all
from labelmill.core.storage.base import ReadableFile
from labelmill_worker.evaluate import temperature
from labelmill_worker.evaluate.answer_block import AnswerBlock
from labelmill_worker.evaluate.leakage import seen_in
from labelmill_worker.evaluate.multi_label import MultiLabelTally
from labelmill_worker.evaluate.probabilities import histogram
from labelmill_worker.evaluate.rescaled_thresholds import NewScale
from labelmill_worker.evaluate.scores import as_exported
from labelmill_worker.evaluate.single_label import SingleLabelTally
from labelmill_worker.evaluate.temperature import Scale
from labelmill_worker.evaluate.truth import Truth, read_split, read_truth
from labelmill_worker.inference.models.temperature import are_probabilities, scaled
from labelmill_worker.store.evaluations import read_answers

_BLOCK = 4096
_TEXT_CHARS = 1_000  #: Of a text in a report.


@dataclass(frozen=True)
class SplitMetrics:
    """What an evaluation found: `metrics` by target, `analysis` for reports."""

    rows: int
    metrics: dict[str, Any]
    analysis: dict[str, Any]
    seen: int | None  #: Rows whose text the model was trained on; None: not known.
    tokens: int  #: Of the distinct texts, counted here.


@dataclass(frozen=True)
class ClassifiedSplit:
    """A split and the batch that classified it."""

    engine: Engine
    batch_no: int
    schema: LabelSchema
    file: ReadableFile

    def blocks(self, truth: Truth, rows: int) -> Iterator[AnswerBlock]:
        """The answers to one target's rows, in order."""
        number = self.schema.targets.index(truth.target)
        for first in range(0, rows, _BLOCK):
            with reading(self.engine) as connection:
                answers = read_answers(connection, self.batch_no, first, first + _BLOCK, number)
            at = np.searchsorted(truth.rows, [answer[0] for answer in answers])
            if len(truth.rows) < rows:  # some rows have no truth for this target
                at = np.minimum(at, len(truth.rows) - 1)
                there = truth.rows[at] == [answer[0] for answer in answers]
                at, answers = at[there], [answer for answer, has in zip(answers, there, strict=True) if has]
            yield AnswerBlock(
                at,
                [answer[1] for answer in answers],
                [orjson.loads(answer[2]) if answer[2] is not None else None for answer in answers],
                as_exported([answer[3] for answer in answers], len(truth.target.labels)),
            )


def measure(
    split: ClassifiedSplit, scales: Mapping[str, Scale], train: ReadableFile | None, check: Callable[[], None]
) -> SplitMetrics:
    """Every metric of every target that the split has labels for. `train`: what the model was trained on; `scales`: the
    temperature of each target that has one.

    `check` is called now and then, and raises once nothing more may be written. Raises Permanent.
    """
    rows, truths = read_truth(split.file, split.schema)
    seen = seen_in(train, split.file) if train is not None else None
    metrics: dict[str, Any] = {}
    targets: dict[str, Any] = {}
    for truth in truths:
        kind = MultiLabelTally if truth.target.multi else SingleLabelTally
        tally = kind(truth, scales.get(truth.target.name))
        for block in split.blocks(truth, rows):
            tally.add(block)
            check()
        metrics[truth.target.name] = tally.metrics() | _unseen(tally.correct, seen, truth)
        targets[truth.target.name] = tally.analysis() | _which_seen(seen, truth)
        check()
    add_texts(split.file, targets)
    tokens = count_all(dict.fromkeys(text_of_row(row) for row in read_split(split.file)))
    return SplitMetrics(rows, metrics, {"targets": targets}, None if seen is None else int(seen.sum()), tokens)


@dataclass(frozen=True)
class FittedTemperature:
    """What was found for a target: for people, and to carry its thresholds over."""

    report: dict[str, Any]
    scale: NewScale


def fit_temperatures(split: ClassifiedSplit, check: Callable[[], None]) -> dict[str, FittedTemperature]:
    """target → its temperature, of the targets that the split has labels and probabilities for. Raises Permanent.

    Scores of 1 and 0 alone, as prompts give them, are no probabilities: no temperature changes them.
    """
    rows, truths = read_truth(split.file, split.schema)
    found: dict[str, FittedTemperature] = {}
    for truth in truths:
        known = len(truth.target.labels)
        every = -(-len(truth.rows) // temperature.MAX_ROWS)
        places: list[NDArray[np.int64]] = []
        scores = []
        for block in split.blocks(truth, rows):
            kept = block.at % every == 0
            places.append(block.at[kept])
            scores.append(block.scores[kept])
            check()
        at, table = np.concatenate(places), np.concatenate(scores)
        if not are_probabilities(table) or np.isin(table, (0.0, 1.0)).all():
            continue
        if truth.target.multi:
            fitted = temperature.fit_multi(table, truth.present()[at, :known])
        else:
            real = truth.single()[at]
            fitted = temperature.fit_single(table[real < known], real[real < known])
        if fitted is not None:
            scale = NewScale(truth.target, fitted["temperature"], table)
            calibrated = scaled(table, fitted["temperature"], multi=truth.target.multi)
            # later batches are compared with them
            report = fitted | {"best_scores": histogram(calibrated.max(axis=1))}
            found[truth.target.name] = FittedTemperature(report, scale)
    return found


def _unseen(correct: NDArray[np.bool_], seen: NDArray[np.bool_] | None, truth: Truth) -> dict[str, Any]:
    """How the rows fared that the model was not trained on."""
    if seen is None:
        return {}
    fresh = ~seen[truth.rows]
    accuracy = float(correct[fresh].mean()) if fresh.any() else None
    return {"unseen_rows": int(fresh.sum()), "accuracy_unseen": accuracy}


def _which_seen(seen: NDArray[np.bool_] | None, truth: Truth) -> dict[str, Any]:
    """Which rows have a text that the model was trained on: a comparison leaves them out."""
    return {} if seen is None else {"seen": pack_bits(seen[truth.rows])}


def add_texts(split: ReadableFile, targets: dict[str, Any]) -> None:
    """Give the mistakes and suspects that a page shows the beginnings of their texts."""
    cases = [case for target in targets.values() for case in (*target.get("mistakes", ()), *target["suspects"])]
    wanted = {case["row"] for case in cases}
    texts = {
        number: transcript(text_of_row(row))[:_TEXT_CHARS]
        for number, row in enumerate(read_split(split))
        if number in wanted
    }
    for case in cases:
        case["text"] = texts[case["row"]]
