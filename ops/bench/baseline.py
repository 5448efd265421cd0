"""What TF-IDF and a logistic regression reach on the very rows that a training had, thresholds tuned the same way.

    python ops/bench/baseline.py TRAIN.jsonl VALIDATION.jsonl TEST.jsonl

prints one line of JSON for each target. The files are those of `labelmill status PREP_ID --json`, under `files`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_union

from labelmill.contracts.chats import text_of_row, transcript
from labelmill.contracts.label_schema import Target
from labelmill_worker.train.heads.thresholds import tune_thresholds

_C = 10
_ITERATIONS = 300

Rows = list[dict[str, Any]]


def main() -> None:
    """Print what the baseline reaches on TEST."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for split in ("train", "validation", "test"):
        arguments.add_argument(split, type=Path)
    given = arguments.parse_args()
    train, validation, test = (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in (given.train, given.validation, given.test)
    )
    vectoriser = make_union(
        TfidfVectorizer(ngram_range=(1, 2)), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5))
    )
    vectors = [
        vectoriser.fit_transform(_texts(train)),
        *(vectoriser.transform(_texts(one)) for one in (validation, test)),
    ]
    for name, label in train[0]["labels"].items():
        labels = [[row["labels"][name] for row in rows] for rows in (train, validation, test)]
        found = _several(name, vectors, labels) if isinstance(label, list) else _one(vectors, labels)
        print(json.dumps({"target": name, **{key: round(value, 4) for key, value in found.items()}}))


def _texts(rows: Rows) -> list[str]:
    return [transcript(text_of_row(row)) for row in rows]


def _one(vectors: list[Any], labels: list[list[str]]) -> dict[str, float]:
    fitted = LogisticRegression(C=_C, max_iter=_ITERATIONS).fit(vectors[0], labels[0])
    given = fitted.predict(vectors[2])
    return {
        "accuracy": float(np.mean(given == np.array(labels[2]))),
        "macro_f1": f1_score(labels[2], given, average="macro", zero_division=0),
    }


def _several(name: str, vectors: list[Any], labels: list[list[list[str]]]) -> dict[str, float]:
    """One regression a label; a label that no row or every row of train has keeps that share as its score."""
    names = sorted({label for rows in labels for row in rows for label in row})
    truth = [np.array([[label in row for label in names] for row in rows]) for rows in labels]
    scores = [np.empty(one.shape, np.float32) for one in truth]
    for at in range(len(names)):
        has = truth[0][:, at]
        fitted = None if has.all() or not has.any() else LogisticRegression(C=_C, max_iter=_ITERATIONS)
        if fitted is not None:
            fitted.fit(vectors[0], has)
        for split in (1, 2):
            scores[split][:, at] = has[0] if fitted is None else fitted.predict_proba(vectors[split])[:, 1]
    limits = tune_thresholds(scores[1], truth[1], Target(name, tuple(names), multi=True))
    given: NDArray[np.bool_] = scores[2] >= np.array([limits[label] for label in names], np.float32)
    return {
        "exact": float((given == truth[2]).all(axis=1).mean()),
        "micro_f1": f1_score(truth[2], given, average="micro", zero_division=0),
        "macro_f1": f1_score(truth[2], given, average="macro", zero_division=0),
    }


if __name__ == "__main__":
    main()
