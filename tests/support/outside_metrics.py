"""Every metric of an evaluation, computed by scikit-learn from what anybody can export: result rows and labelled rows.

It knows nothing of Labelmill's code. `python outside_metrics.py STATUS.json RESULTS LABELLED.jsonl`, with RESULTS in
JSONL or Parquet, prints the greatest differences.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
)

BINS = 15
CELLS = ("true_negative", "false_positive", "false_negative", "true_positive")

Row = dict[str, Any]


def read_exported(path: Path) -> dict[int, Row]:
    """Row number → its `predictions`, of a JSONL or Parquet file of results; of failed rows an empty one."""
    if path.suffix == ".parquet":
        return _read_parquet(path)
    with path.open(encoding="utf-8") as lines:
        return {row["row"]: row["predictions"] for row in map(json.loads, lines)}


def _read_parquet(path: Path) -> dict[int, Row]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - JSONL needs none

    found: dict[int, Row] = {}
    for row in pq.read_table(path).to_pylist():
        predictions: Row = {}
        for column in row:
            target = column.removesuffix("_scores")
            if column == target or target not in row or row[column] is None:
                continue
            # a 32-bit float in its fewest digits, as JSONL has it
            answer, scores = row[target], {label: float(str(np.float32(score))) for label, score in row[column]}
            is_list = answer is not None and answer.startswith("[") and answer not in scores
            predictions[target] = {
                "score": row[f"{target}_score"],
                "scores": scores,
                **({"labels": json.loads(answer)} if is_list else {"label": answer}),
            }
        found[row["row"]] = predictions
    return found


def recompute(exported: dict[int, Row], labelled: Sequence[Row], target: str, *, multi: bool) -> dict[str, Any]:
    """The target's `metrics`, but for the bootstrap intervals. `labelled`: rows `{"labels": {target: …}}`, in order."""
    rows = [number for number, row in enumerate(labelled) if row["labels"].get(target) is not None]
    truth = [labelled[number]["labels"][target] for number in rows]
    answers = [exported.get(number, {}).get(target) for number in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # float32 scores sum to one but for some 1e-7
        return _multi(truth, answers) if multi else _single(truth, answers)


def _single(truth: list[Any], answers: list[Row | None]) -> dict[str, Any]:
    real = [one if isinstance(one, str) else one[0] for one in truth]
    scored = [(one, answer["scores"]) for one, answer in zip(real, answers, strict=True) if answer]
    known = list(scored[0][1]) if scored else []
    every = sorted({*known, *real})
    nothing = "(none)"
    while nothing in every:
        nothing = f"({nothing})"
    given = [nothing if answer is None or answer["label"] is None else answer["label"] for answer in answers]
    names = sorted({*real, *given} - {nothing})
    averages = {
        f"{average}_f1": f1_score(real, given, labels=names, average=average, zero_division=0)
        for average in ("macro", "weighted", "micro")
    }
    parts = precision_recall_fscore_support(real, given, labels=names, zero_division=0)
    table = confusion_matrix(real, given, labels=[*names, nothing])
    scores = np.array([[row.get(name, 0.0) for name in every] for _, row in scored])
    best = np.array([max(row.values()) for _, row in scored])
    top = [max(row, key=row.__getitem__) for _, row in scored]
    right = np.array([one == label for (one, _), label in zip(scored, top, strict=True)], float)
    answered = [one != nothing for one in given]
    return {
        "accuracy": accuracy_score(real, given),
        **averages,
        "per_label": _per_label(names, parts),
        "confusion": {
            name: {other: int(n) for other, n in zip([*names, nothing], table[at], strict=True) if n}
            for at, name in enumerate(names)
            if table[at].sum()
        },
        "rows": len(real),
        "answered": sum(answered),
        "abstained": len(scored) - sum(answered),
        "failed": len(real) - len(scored),
        "accuracy_answered": accuracy_score(_where(real, answered), _where(given, answered)) if any(answered) else None,
        "labels_averaged": len(names),
        "log_loss": log_loss([one for one, _ in scored], scores, labels=every),
        "brier": brier_score_loss(
            [one for one, _ in scored],
            scores if len(every) > 2 else scores[:, 1],
            labels=every,
            **({} if len(every) > 2 else {"pos_label": every[1]}),
        ),
        "ece": _ece(best, right),
        "coverage": _coverage(best, right, len(real)),
        "unknown_labels": {name: real.count(name) for name in every if name not in known},
        "absent_labels": sorted(set(known) - set(real)),
    }


def _multi(truth: list[Any], answers: list[Row | None]) -> dict[str, Any]:
    real = [[one] if isinstance(one, str) else one for one in truth]
    known = list(next(answer["scores"] for answer in answers if answer))
    names = [*known, *sorted({label for labels in real for label in labels} - set(known))]
    held = [(answer.get("labels") or []) if answer else [] for answer in answers]
    present, given = _indicators(real, names), _indicators(held, names)
    answered = np.array([answer is not None and answer.get("labels") is not None for answer in answers])
    correct = (present == given).all(axis=1) & answered
    scored = np.array([bool(answer) for answer in answers])
    scores = np.array([[answer["scores"][name] for name in known] for answer in answers if answer])
    there = present[scored][:, : len(known)]
    best = scores.max(axis=1)
    losses = [log_loss(there[:, at], scores[:, at], labels=[0, 1]) for at in range(len(known))]
    squares = [brier_score_loss(there[:, at], scores[:, at]) for at in range(len(known))]
    parts = precision_recall_fscore_support(present, given, zero_division=0)
    tables = multilabel_confusion_matrix(present, given)
    return {
        # a row that abstained is wrong even where it has no label
        "accuracy": accuracy_score(present, given) if answered.all() else float(correct.mean()),
        **{
            f"{average}_f1": f1_score(present, given, average=average, zero_division=0)
            for average in ("macro", "weighted", "micro")
        },
        "per_label": _per_label(names, parts),
        "confusion": {
            name: dict(zip(CELLS, table.ravel().tolist(), strict=True))
            for name, table in zip(names, tables, strict=True)
        },
        "rows": len(real),
        "answered": int(answered.sum()),
        "abstained": int((scored & ~answered).sum()),
        "failed": int((~scored).sum()),
        "accuracy_answered": float(correct[answered].mean()) if answered.any() else None,
        "labels_averaged": len(names),
        "log_loss": float(np.mean(losses)),
        "brier": float(np.mean(squares)),
        "ece": _ece(scores.ravel(), there.ravel().astype(float)),
        "coverage": _coverage(best, correct[scored].astype(float), len(real)),
        "unknown_labels": {name: int(present[:, at].sum()) for at, name in enumerate(names) if name not in known},
        "absent_labels": sorted(name for at, name in enumerate(known) if not present[:, at].any()),
    }


def _where(values: list[str], kept: list[bool]) -> list[str]:
    return [value for value, keep in zip(values, kept, strict=True) if keep]


def _indicators(labels: Iterable[Sequence[str]], names: list[str]) -> Any:
    return np.array([[int(name in row) for name in names] for row in labels])


def _per_label(names: list[str], parts: Any) -> dict[str, Any]:
    keys = ("precision", "recall", "f1", "support")
    return {
        name: dict(zip(keys, column, strict=True)) for name, column in zip(names, zip(*parts, strict=True), strict=True)
    }


def _ece(confidence: Any, right: Any) -> float:
    """15 equal bins, (0, 1/15], (1/15, 2/15], …: gap between mean confidence and share right, weighted by rows."""
    at = np.clip(np.ceil(np.clip(confidence, 0, 1) * BINS), 1, BINS)
    gaps = [
        abs(confidence[at == number].mean() - right[at == number].mean()) * (at == number).sum()
        for number in range(1, BINS + 1)
        if (at == number).any()
    ]
    return float(sum(gaps) / len(confidence))


def _coverage(best: Any, right: Any, rows: int) -> list[dict[str, Any]]:
    found = []
    for step in range(21):
        kept = best >= step / 20
        accuracy = float(right[kept].mean()) if kept.any() else None
        found.append({"threshold": step / 20, "coverage": kept.sum() / rows, "accuracy": accuracy})
    return found


def differences(reported: Any, found: Any, where: str = "") -> dict[str, float]:
    """Where two documents of metrics differ, and by how much; what is no number and differs, by infinity."""
    if isinstance(found, dict):
        absent = {f"{where}.{key}": float("inf") for key in found if key not in reported}
        parts = [differences(reported[key], value, f"{where}.{key}") for key, value in found.items() if key in reported]
        if where.endswith(("per_label", "confusion", "unknown_labels")) and reported.keys() != found.keys():
            absent[where] = float("inf")
        return absent | {key: gap for part in parts for key, gap in part.items()}
    if isinstance(found, list) and found and isinstance(found[0], dict):
        parts = [
            differences(one, other, f"{where}[{at}]")
            for at, (one, other) in enumerate(zip(reported, found, strict=True))
        ]
        return {key: gap for part in parts for key, gap in part.items()}
    if isinstance(found, int | float | np.number) and isinstance(reported, int | float):
        return {where: abs(float(found) - float(reported))}
    return {where: 0.0 if found == reported else float("inf")}


def check(status: dict[str, Any], exported: dict[int, Row], labelled: Sequence[Row]) -> dict[str, float]:
    """Metric → how far the evaluation is from what scikit-learn finds."""
    gaps: dict[str, float] = {}
    for target, reported in status["metrics"].items():
        multi = all(set(cells) == set(CELLS) for cells in reported["confusion"].values())
        gaps |= differences(reported, recompute(exported, labelled, target, multi=multi), target)
    return gaps


if __name__ == "__main__":
    document = json.loads(Path(sys.argv[1]).read_text())
    rows = [json.loads(line) for line in Path(sys.argv[3]).read_text(encoding="utf-8").splitlines()]
    worst = sorted(check(document, read_exported(Path(sys.argv[2])), rows).items(), key=lambda pair: -pair[1])
    sys.stdout.write("\n".join(f"{gap:.3g}  {name}" for name, gap in worst[:5]) + f"\n{len(worst)} numbers\n")
