"""How often what trainings promise of labels, thresholds and scores comes true, on data whose truth is known.

    python ops/bench/heads_measured.py single TRAIN.jsonl [--text COL] [--label COL] [--runs N]
    python ops/bench/heads_measured.py multi TRAIN.jsonl VALIDATION.jsonl TEST.jsonl --target NAME

prints one line of JSON for each measurement. Vectors are those of the emulator: they say how methods compare, not how
good Mistral is. Labels are changed, and rows drawn, by a seed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.contracts.specs import Aim
from labelmill_ops.emulator.embedding import embed
from labelmill_worker.evaluate import f1
from labelmill_worker.evaluate.probabilities import Reliability
from labelmill_worker.evaluate.temperature import fit_single
from labelmill_worker.inference.models.temperature import scaled
from labelmill_worker.train.heads.certified import certified_threshold
from labelmill_worker.train.heads.fit import Fitted, fit_head
from labelmill_worker.train.heads.thresholds import tune_thresholds
from labelmill_worker.train.heads.vector_rows import VectorRows, write_vector_rows

_FLIPPED = 0.05
_AIMS: tuple[Aim, ...] = ("micro", "macro", "precision")

Floats = NDArray[np.float64]
Labels = list[Any]


def main() -> None:
    """Measure what was asked for."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("kind", choices=("single", "multi"))
    arguments.add_argument("files", nargs="+", type=Path)
    arguments.add_argument("--text", default="text")
    arguments.add_argument("--label", default="label")
    arguments.add_argument("--target", default="")
    arguments.add_argument("--rows", type=int, default=4_000)
    arguments.add_argument("--runs", type=int, default=300)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        if options.kind == "single":
            rows = [json.loads(line) for line in options.files[0].read_text("utf-8").splitlines()]
            rng.shuffle(rows)
            _single(Path(folder), [(row[options.text], row[options.label]) for row in rows], options, rng)
        else:
            splits = [[json.loads(line) for line in file.read_text("utf-8").splitlines()] for file in options.files]
            pairs = [[(row["text"], row["labels"][options.target]) for row in rows] for rows in splits]
            _multi(Path(folder), pairs, options, rng)


def _written(folder: Path, name: str, schema: LabelSchema, texts: list[str], labels: Labels) -> VectorRows:
    vectors = embed(texts).astype("<f2")
    target = schema.targets[0].name
    rows = ((vector.tobytes(), {target: label}) for vector, label in zip(vectors, labels, strict=True))
    return write_vector_rows(folder / name, schema, rows)


def _say(measured: str, **found: Any) -> None:
    shown = {name: round(value, 4) if isinstance(value, float) else value for name, value in found.items()}
    print(json.dumps({"measured": measured} | shown), flush=True)


def _single(folder: Path, rows: list[tuple[str, str]], options: argparse.Namespace, rng: np.random.Generator) -> None:
    names = sorted({label for _, label in rows})
    target = Target("label", tuple(names))
    schema = LabelSchema((target,))
    train, rest = rows[: options.rows], rows[options.rows :]
    texts, labels = [text for text, _ in train], [label for _, label in train]
    changed = rng.random(len(train)) < _FLIPPED
    flipped = [
        names[(names.index(label) + int(rng.integers(1, len(names)))) % len(names)] if change else label
        for label, change in zip(labels, changed, strict=True)
    ]
    fitted = fit_head(_written(folder, "flipped", schema, texts, flipped), None, schema)
    _suspects(fitted, set(np.flatnonzero(changed).tolist()))
    fitted = fit_head(_written(folder, "train", schema, texts, labels), None, schema)
    held = _written(folder, "rest", schema, [text for text, _ in rest], [label for _, label in rest])
    every = np.arange(held.count)
    scores = fitted.head.scores(held.take(every))[0].astype(np.float64)
    truth = held.labels[0].single(every)
    _calibration(scores, truth, rng)
    _precision(scores, truth, options.runs, rng)


def _suspects(fitted: Fitted, wrong: set[int]) -> None:
    found = [case[0] for case in fitted.suspects["label"]["all_suspects"]]
    _say(
        "suspects in train",
        rows_changed=len(wrong),
        suspected=len(found),
        recall=len(wrong & set(found)) / len(wrong),
        precision_of_first_50=sum(row in wrong for row in found[:50]) / min(50, max(1, len(found))),
    )


def _calibration(scores: Floats, truth: NDArray[np.int32], rng: np.random.Generator) -> None:
    order = rng.permutation(len(truth))
    fitted_on, rest = order[: len(order) // 4], order[len(order) // 4 :]
    fitted = fit_single(scores[fitted_on], truth[fitted_on])
    assert fitted is not None  # noqa: S101 - there are rows
    at_temperature = scaled(scores[rest], fitted["temperature"], multi=False)
    for name, table in (("scores as they are", scores[rest]), ("scores at the temperature", at_temperature)):
        right = table.argmax(axis=1) == truth[rest]
        reliability = Reliability()
        reliability.add(table.max(axis=1), right)
        losses = -np.log(np.clip(table[np.arange(len(rest)), truth[rest]], 1e-16, 1))
        error = reliability.error() or 0.0
        _say(name, accuracy=float(right.mean()), log_loss=float(losses.mean()), ece=error)


def _precision(scores: Floats, truth: NDArray[np.int32], runs: int, rng: np.random.Generator) -> None:
    best, right = scores.max(axis=1).astype(np.float32), scores.argmax(axis=1) == truth
    for rows in (200, 500, 1_000):
        for precision in (0.9, 0.95):
            held = reached = 0
            kept: list[float] = []
            for _ in range(runs):
                drawn = rng.permutation(len(best))
                seen, unseen = drawn[:rows], drawn[rows:]
                found = certified_threshold(best[seen], right[seen], precision)
                if found.threshold is None:
                    held += 1
                    continue
                reached += 1
                answered = best[unseen] >= np.float32(found.threshold)
                held += right[unseen][answered].mean() >= precision
                kept.append(float(answered.mean()))
            _say(
                "certified precision",
                asked=precision,
                validation_rows=rows,
                held=held / runs,
                reached=reached / runs,
                coverage=float(np.mean(kept or [0.0])),
            )


def _multi(
    folder: Path, splits: list[list[tuple[str, list[str]]]], options: argparse.Namespace, rng: np.random.Generator
) -> None:
    train, validation, test = splits
    target = Target(options.target, tuple(sorted({label for _, labels in train for label in labels})), multi=True)
    schema = LabelSchema((target,))
    tables = [
        _written(folder, name, schema, [text for text, _ in rows], [labels for _, labels in rows])
        for name, rows in (("train", train[: options.rows]), ("validation", validation), ("test", test))
    ]
    fitted = fit_head(tables[0], None, schema)
    (tuned, held), (real, truth) = (
        ([fitted.head.scores(one.take(np.arange(one.count)))[0] for one in tables[1:]]),
        ([one.labels[0].present(np.arange(one.count)) for one in tables[1:]]),
    )
    _say("every label", micro_f1=f1.micro_f1_of_every_label(truth.sum(axis=0).astype(float), len(truth)))
    for rows in (300, 1_000, len(tuned)):
        for aim in _AIMS:
            measured: list[list[float]] = []
            for _ in range(1 if rows == len(tuned) else min(20, options.runs)):
                drawn = rng.permutation(len(tuned))[:rows]
                limits = tune_thresholds(tuned[drawn], real[drawn], target, aim)
                answers = held >= np.array([limits[label] for label in target.labels], np.float32)
                found = f1.averages(*f1.counts(truth, answers), present_only=False)
                right = float((answers & truth).sum() / max(1, answers.sum()))
                measured.append(
                    [float(found["micro_f1"]), float(found["macro_f1"]), right, float(answers.sum(1).mean())]
                )
            micro, macro, right, labels = np.mean(measured, axis=0).tolist()
            _say(
                f"thresholds for {aim}",
                validation_rows=rows,
                micro_f1=micro,
                macro_f1=macro,
                precision=right,
                labels_per_row=labels,
            )


if __name__ == "__main__":
    main()
