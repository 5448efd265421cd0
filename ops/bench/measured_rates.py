"""How often the statistics of reports and comparisons are right, on labelled rows of one's own.

    python ops/bench/measured_rates.py ROWS.jsonl TARGET [--foreign ROWS.jsonl] [--only drift] [--samples 200]

A model (TF-IDF and a logistic regression) is fitted to the first half of the rows; the other half stands for all texts
there are. Samples of it are judged as the product judges them, and what comes out is compared with what is so of all:

- `intervals`: how often the interval of a metric holds the metric's value on all texts;
- `calibration`: how often scores that are as good as they say are warned of;
- `drift`: how often samples of the same texts are called drift, and samples with out-of-scope texts (of labels that
  the model was not taught) or with foreign texts in them.

Prints one line of JSON for each rate. ROWS are rows as `prepare` writes them, `{"text", "labels": {TARGET: …}}`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from labelmill.contracts.label_schema import Target
from labelmill.report.drift import AnswerCounts, drift_between
from labelmill_worker.evaluate.answer_block import AnswerBlock
from labelmill_worker.evaluate.multi_label import MultiLabelTally
from labelmill_worker.evaluate.probabilities import Reliability, histogram
from labelmill_worker.evaluate.single_label import SingleLabelTally
from labelmill_worker.evaluate.truth import Truth

_C, _ITERATIONS, _FEATURES = 30, 300, 20_000
_OUT_OF_SCOPE = 0.2  #: Of the labels: what the model is not taught.
_ROWS = (100, 300, 600, 2_000)
_VALIDATION = 700  #: Rows of it.
_HOLDS = 0.3  #: From this score on a label of a multi-label target holds.
_INTERVALS = ("accuracy", "macro_f1", "weighted_f1", "micro_f1")

Scores = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Population:
    """All texts there are: scores (rows, labels), which labels each row has, and the scores of other texts."""

    target: Target
    scores: Scores
    present: Bools
    out_of_scope: Scores
    foreign: Scores

    def metrics(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """What an evaluation of these rows finds."""
        scores, present = self.scores[rows], self.present[rows]
        codes = np.nonzero(present)[1].astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
        truth = Truth(self.target, list(self.target.labels), np.arange(len(rows)), starts, codes)
        names = self.target.labels
        at = np.arange(len(rows))
        if self.target.multi:
            given: list[list[str] | None] = [
                [names[label] for label in np.flatnonzero(row >= _HOLDS)] for row in scores
            ]
            several = MultiLabelTally(truth)
            several.add(AnswerBlock(at, [None] * len(rows), given, scores))
            return several.metrics()
        one = SingleLabelTally(truth)
        one.add(AnswerBlock(at, [names[label] for label in scores.argmax(axis=1)], [None] * len(rows), scores))
        return one.metrics()


def population(path: Path, name: str, foreign: Path | None, seed: int) -> Population:
    """Fit the model, and score what it was not fitted to."""
    rows = [row for row in _read(path) if row["labels"].get(name) is not None]
    rng = np.random.default_rng(seed)
    rows = [rows[at] for at in rng.permutation(len(rows))]
    labels = [value if isinstance(value := row["labels"][name], list) else [value] for row in rows]
    multi = any(isinstance(row["labels"][name], list) for row in rows)
    every = sorted({label for some in labels for label in some})
    unknown = set() if multi else set(rng.choice(every, int(len(every) * _OUT_OF_SCOPE), replace=False).tolist())
    known = [label for label in every if label not in unknown]
    inside = [at for at, some in enumerate(labels) if not unknown & set(some)]
    half = len(inside) // 2
    vectoriser = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), min_df=2, max_features=_FEATURES, sublinear_tf=True
    )
    vectors = vectoriser.fit_transform([rows[at]["text"] for at in inside[:half]])
    present = np.array([[label in labels[at] for label in known] for at in inside])
    regression = LogisticRegression(C=_C, max_iter=_ITERATIONS)
    model = OneVsRestClassifier(regression) if multi else regression
    model.fit(vectors, present[:half] if multi else present[:half].argmax(axis=1))

    def scored(texts: list[str]) -> Scores:
        found: Scores = model.predict_proba(vectoriser.transform(texts)) if texts else np.empty((0, len(known)))
        return found

    return Population(
        Target(name, tuple(known), multi=multi),
        scored([rows[at]["text"] for at in inside[half:]]),
        present[half:],
        scored([row["text"] for row, some in zip(rows, labels, strict=True) if unknown & set(some)]),
        scored([row["text"] for row in _read(foreign)] if foreign else []),
    )


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def intervals(texts: Population, samples: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Of samples of so many rows: how often each interval holds what is so of all texts, and is given at all."""
    every = np.arange(len(texts.scores))
    real = texts.metrics(every)
    for rows in _ROWS:
        held: dict[str, list[bool]] = {name: [] for name in _INTERVALS}
        for _ in range(samples):
            found = texts.metrics(rng.integers(0, len(every), rows))["intervals"]
            for name in _INTERVALS:
                if bounds := found[name]:
                    held[name].append(bool(bounds[0] <= real[name] <= bounds[1]))
        for name, those in held.items():
            rate = round(float(np.mean(those)), 3) if those else None
            yield {
                "measure": f"the interval of {name} holds",
                "rows": rows,
                "rate": rate,
                "given": len(those) / samples,
            }


def calibration(texts: Population, samples: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Of samples of so many rows whose scores are exactly as often right as they say: how often they are warned of."""
    best = texts.scores.max(axis=1)
    for rows in _ROWS:
        warned = 0
        for _ in range(samples):
            confidence = np.clip(best[rng.integers(0, len(best), rows)], 0, 1)
            found = Reliability()
            found.add(confidence, rng.random(rows) < confidence)
            warned += (found.error() or 0) > max(0.05, found.error_by_luck() or 0)
        yield {"measure": "perfect scores are warned of", "rows": rows, "rate": warned / samples}


def drift(texts: Population, samples: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Batches against answers to a validation split of 700 rows: how often they are called drift."""
    others = {"out of scope": (texts.out_of_scope, 0.2), "foreign": (texts.foreign, 0.3)}
    for rows in (20, *_ROWS):
        for name, (scores, share) in {"of the same texts": (texts.scores[:0], 0.0), **others}.items():
            mixed = int(rows * share)
            if len(scores) < mixed or len(texts.scores) < rows + _VALIDATION or (mixed == 0) != (share == 0):
                continue
            found = []
            for _ in range(samples):
                order = rng.permutation(len(texts.scores))[: rows + _VALIDATION]
                other = scores[rng.choice(len(scores), mixed, replace=False)] if mixed else scores
                batch = np.concatenate([texts.scores[order[_VALIDATION : _VALIDATION + rows - mixed]], other])
                before = _answers(texts.target, texts.scores[order[:_VALIDATION]])
                verdict = drift_between(before, _answers(texts.target, batch), "validation", multi=texts.target.multi)
                found.append(verdict is not None and verdict.tone in ("warning", "bad"))
            what = f"a batch with {share:.0%} {name}" if mixed else f"a batch {name}"
            yield {"measure": f"{what} is called drift", "rows": rows, "rate": round(float(np.mean(found)), 3)}


def _answers(target: Target, scores: Scores) -> AnswerCounts:
    given = (
        (scores >= _HOLDS).sum(axis=0)
        if target.multi
        else np.bincount(scores.argmax(axis=1), minlength=scores.shape[1])
    )
    labels = {label: int(rows) for label, rows in zip(target.labels, given, strict=True) if rows}
    return AnswerCounts(len(scores), labels, histogram(scores.max(axis=1)))


MEASURES: dict[str, Callable[[Population, int, np.random.Generator], Iterator[dict[str, Any]]]] = {
    "intervals": intervals,
    "calibration": calibration,
    "drift": drift,
}


def main() -> None:
    """Print the rates."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("rows", type=Path)
    arguments.add_argument("target")
    arguments.add_argument("--foreign", type=Path)
    arguments.add_argument("--only", choices=list(MEASURES))
    arguments.add_argument("--samples", type=int, default=200)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    texts = population(given.rows, given.target, given.foreign, given.seed)
    print(
        f"{len(texts.scores):,} rows, {len(texts.target.labels)} labels, {len(texts.out_of_scope):,} out of scope, "
        f"{len(texts.foreign):,} foreign",
        file=sys.stderr,
    )
    for name, measure in MEASURES.items():
        if given.only in (None, name):
            for line in measure(texts, given.samples, np.random.default_rng(given.seed)):
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
