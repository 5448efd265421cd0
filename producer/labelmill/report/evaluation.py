"""The report of an evaluation."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection

from labelmill.core.database.analysis_codec import load_analysis
from labelmill.core.database.tables import ModelRow
from labelmill.report.parts import Curves, Dots, Figure, Grid, Heading, Histogram, Matrix, Note, Part, facts, money
from labelmill.report.suspects import cases_of, suspects_of
from labelmill.services.evaluations import is_of_training_rows

_LABELS_SHOWN = 40
_PAIRS_SHOWN = 20
_WHOLE_MATRIX = 200  #: Labels; a larger matrix shows nothing on a page, the most confused labels are listed.
_MEASURES = (
    ("accuracy", "accuracy", "share of rows that are right; of a multi-label target: that have exactly their labels"),
    ("macro_f1", "macro F1", "how well labels are found, each label counting alike, the rare ones too; 1 is perfect"),
    ("weighted_f1", "weighted F1", "the same, each label counting by its rows"),
    ("micro_f1", "micro F1", "the same, each decision counting alike"),
    ("accuracy_answered", "accuracy of answered rows", "abstained and failed rows left aside"),
    ("accuracy_unseen", "accuracy of rows not seen in training", "what to expect of texts to come"),
    ("log_loss", "log-loss", "how surprised the scores are by the truth; 0 is perfect, compare it between models"),
    ("brier", "Brier score", "squared error of the scores; 0 is perfect, compare it between models"),
    ("ece", "expected calibration error", "how far scores are from the share that is right; under 0.05 is good"),
    ("ece_by_luck", "the same, by luck alone", "what perfect scores stay below in 99 of 100 samples of so many rows"),
)
_BADLY_CALIBRATED = 0.05  #: An expected calibration error up to here does no harm.
_OF_SCORES = ("log_loss", "brier", "ece", "ece_by_luck")  #: Measures that mean nothing for scores of 1 and 0.


def parts_of(connection: Connection, document: dict[str, Any]) -> list[Part]:
    """The contents of an evaluation's page."""
    summary = document["summary"] or {}
    parts: list[Part] = [
        facts(
            {
                "model": document["model"],
                "dataset": document["dataset"],
                "split": document["split"],
                "rows": summary.get("rows"),
                "answered": summary.get("answered"),
                "failed": summary.get("failed"),
                "duplicates": summary.get("duplicates"),
                "cost": money(summary.get("cost")),
                "cost per 1,000 texts": money(summary.get("cost_per_1000")),
                "prices as of": summary.get("prices_as_of"),
                "tokens": summary.get("tokens"),
                "seconds per 1,000 texts": summary.get("seconds_per_1000"),
                "batch": document["batch"],
            }
        )
    ]
    if failures := summary.get("failures"):
        parts.append(Grid(("failed because of", "rows"), sorted(failures.items()), "Failed rows"))
    if (seen_rows := summary.get("seen_in_training")) is not None:
        parts.append(_leakage(seen_rows, summary["rows"]))
    trained_on = is_of_training_rows(document)
    if trained_on:
        parts.append(_only_of_training_rows(connection, document["model"]))
    analysis = load_analysis(connection, document["id"]).get("targets", {})
    for name, metrics in (document["metrics"] or {}).items():
        parts.append(Heading(f"Target {name}"))
        parts += _target(name, document["id"], metrics, analysis.get(name, {}), trained_on=trained_on)
    return parts


def _only_of_training_rows(connection: Connection, model: str) -> Note:
    name, _, version = model.rpartition("@")
    training = None
    if version.isdecimal():
        this = (ModelRow.name == name, ModelRow.version == int(version), ModelRow.method == "embedding")
        training = connection.scalar(select(ModelRow.training_id).where(*this))
    sentence = (
        "The model was trained on these rows. The figures say how well it remembers them, and nothing about other "
        "rows: evaluate another split for that. Wrong labels among them hardly show here, for the model has "
        "learnt them too"
    )
    if training:
        sentence += f"; labelmill report {training} shows those that fits without the row found"
    return Note(f"{sentence}.", "bad")


def _leakage(seen_rows: int, rows: int) -> Note:
    if not seen_rows:
        return Note("No row of this split has a text that the model was trained on.", "good")
    return Note(
        f"{seen_rows:,} of {rows:,} rows have a text that the model was trained on: their labels say nothing about new "
        "texts. The accuracy of the other rows is below.",
        "warning",
    )


def _target(
    name: str, job_id: str, metrics: dict[str, Any], analysis: dict[str, Any], *, trained_on: bool
) -> list[Part]:
    intervals = {} if trained_on else metrics.get("intervals", {})
    measures = (
        [measure for measure in _MEASURES if measure[0] not in _OF_SCORES] if _scores_are_bare(analysis) else _MEASURES
    )
    rows = [
        (title, metrics[key], _interval(intervals, key), meaning)
        for key, title, meaning in measures
        if metrics.get(key) is not None
    ]
    counts = (
        f"{metrics['rows']:,} rows: {metrics.get('answered', 0):,} answered, {metrics.get('abstained', 0):,} "
        f"abstained, {metrics.get('failed', 0):,} failed. Rows without an answer count as wrong."
    )
    headings = ("measure", "value", "95 % interval", "what it is")
    parts: list[Part] = [
        *_verdict(metrics, analysis, trained_on=trained_on),
        Grid(headings, rows, "Metrics", frozenset({3})),
        Note(counts),
    ]
    if unknown := metrics.get("unknown_labels"):
        listed = ", ".join(f"{label} ({count:,} rows)" for label, count in unknown.items())
        parts.append(Note(f"Labels that the model does not know, and therefore never gives: {listed}.", "warning"))
    parts += _figures(name, metrics, analysis)
    parts.append(_labels(metrics["per_label"]))
    if not analysis.get("multi") and (pairs := _confused(metrics["confusion"])):
        parts.append(Grid(("label", "was given", "rows"), pairs, "Most confused"))
    parts += cases_of(analysis, "mistakes", "Most confident mistakes")
    parts += suspects_of(analysis, job_id)
    return parts


def _verdict(metrics: dict[str, Any], analysis: dict[str, Any], *, trained_on: bool) -> list[Part]:
    """The figures in sentences: how good the model is, compared with what, and what to do."""
    if not analysis or not metrics["rows"]:
        return []
    low, high = (metrics.get("intervals") or {}).get("accuracy") or (metrics["accuracy"],) * 2
    between = "of rows it was trained on" if trained_on else f"{low:.1%} to {high:.1%} on other rows like these"
    if analysis["multi"]:
        right = sum(cell["true_positive"] for cell in metrics["confusion"].values())
        given, real = sum(analysis["given"].values()), sum(analysis["truth"].values())
        parts: list[Part] = [
            Note(
                f"Of the labels given {right / max(1, given):.1%} are right, of the labels there "
                f"{right / max(1, real):.1%} were found. {metrics['accuracy']:.1%} of rows have exactly their labels "
                f"({between})."
            ),
            *_compared_with_every_label(metrics, trained_on=trained_on),
        ]
    else:
        label, rows = max(analysis["truth"].items(), key=lambda item: item[1])
        usual = rows / metrics["rows"]
        sentence = (
            f"Right in {metrics['accuracy']:.1%} of the rows ({between}). Always answering the most frequent label, "
        )
        sentence += f"{label}, would be right in {usual:.1%}"
        if trained_on:
            parts = [Note(f"{sentence}.")]
        elif low > usual:
            parts = [Note(f"{sentence}.", "good")]
        else:
            remedy = "the model is not surely better than that. Train it on more rows of the other labels."
            parts = [Note(f"{sentence}: {remedy}", "bad")]
    if _scores_are_bare(analysis):
        parts.append(
            Note(
                "Its scores are 1 and 0 alone, as those of prompts without log-probabilities are: they do not tell "
                "sure answers from others. What rests on scores is left out, and a threshold would change nothing."
            )
        )
    elif _is_badly_calibrated(metrics) and "calibrated" not in metrics:
        parts.append(
            Note(
                "Its scores do not say how often it is right, by more than luck makes of so few rows: see Reliability "
                "before you choose a threshold. evaluate --calibrate fits a temperature that mends this.",
                "warning",
            )
        )
    return parts


def _compared_with_every_label(metrics: dict[str, Any], *, trained_on: bool) -> list[Part]:
    """Whether a multi-label model is better than one that gives every label to every row."""
    every, labels = metrics.get("micro_f1_every_label"), metrics.get("labels_per_row")
    if every is None or labels is None:  # an earlier version measured it
        return []
    sentence = (
        f"It gives {labels['given']:.1f} labels a row; the rows have {labels['true']:.1f}. Its micro F1 is "
        f"{metrics['micro_f1']:.3f}; giving every label to every row would reach {every:.3f}"
    )
    low = ((metrics.get("intervals") or {}).get("micro_f1") or (metrics["micro_f1"],))[0]
    if trained_on or low > every:
        return [Note(f"{sentence}.")]
    return [Note(f"{sentence}: the model is worth nothing. Train it on more or better rows.", "bad")]


def _is_badly_calibrated(metrics: dict[str, Any]) -> bool:
    """Whether the calibration error is larger than a harmless one, and than chance explains for so few rows."""
    by_luck = metrics.get("ece_by_luck") or 0.0  # evaluations of an earlier version lack it
    return (metrics.get("ece") or 0.0) > max(_BADLY_CALIBRATED, by_luck)


def _scores_are_bare(analysis: dict[str, Any]) -> bool:
    """Whether every score is 1 or 0."""
    points = _points(analysis.get("reliability") or [], "confidence", "accuracy")
    return bool(points) and all(score in (0.0, 1.0) for score, _ in points)


def _interval(intervals: dict[str, Any], key: str) -> str | None:
    if reason := intervals.get("withheld", {}).get(key):
        return f"not given: {reason}"
    bounds = intervals.get(key)
    # no-break spaces: on a phone the bounds would stand below each other
    return f"{bounds[0]:.4f}\N{NO-BREAK SPACE}\N{EN DASH}\N{NO-BREAK SPACE}{bounds[1]:.4f}" if bounds else None


def _figures(name: str, metrics: dict[str, Any], analysis: dict[str, Any]) -> list[Figure]:
    figures: list[Figure] = []
    if analysis and not analysis["multi"] and len(metrics["confusion"]) <= _WHOLE_MATRIX:
        figures.append(_matrix(name, metrics["confusion"]))
    if _scores_are_bare(analysis):
        return [*figures, _given(name, analysis)]
    if analysis.get("reliability"):
        series = {"scores": _points(analysis["reliability"], "confidence", "accuracy")}
        if analysis.get("reliability_calibrated"):
            series["with temperature"] = _points(analysis["reliability_calibrated"], "confidence", "accuracy")
        axes = ("score", "share that is right")
        figures.append(Curves(f"{name}-reliability", "Reliability", series, axes, diagonal=True, unit_axes=True))
    points = _points(analysis.get("coverage") or [], "coverage", "accuracy")
    if len(set(points)) > 1:  # one point is no curve
        axes = ("share of rows kept (highest scores first)", "accuracy")
        figures.append(Curves(f"{name}-coverage", "Accuracy against coverage", {"accuracy": points}, axes, y_most=1.0))
    if any(analysis.get("histogram", ())):
        figures.append(Histogram(f"{name}-scores", "Best scores", analysis["histogram"], "best score"))
    if analysis:
        figures.append(_given(name, analysis))
    return figures


def _points(rows: list[dict[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    return [(row[x], row[y]) for row in rows if row[y] is not None]


def _matrix(name: str, confusion: dict[str, dict[str, int]]) -> Matrix:
    columns = sorted(set(confusion) | {answer for row in confusion.values() for answer in row})
    counts = [[row.get(column, 0) for column in columns] for row in confusion.values()]
    return Matrix(f"{name}-confusion", "Confusion", list(confusion), columns, counts, ("label", "answer"))


def _given(name: str, analysis: dict[str, Any]) -> Dots:
    truth, given, rows = analysis["truth"], analysis["given"], analysis["rows"]
    labels = sorted(truth.keys() | given.keys(), key=lambda label: -truth.get(label, 0))[:_LABELS_SHOWN]
    series = {
        "labels": [truth.get(label, 0) / rows for label in labels],
        "answers": [given.get(label, 0) / rows for label in labels],
    }
    return Dots(f"{name}-labels", "Labels and answers", labels, series, "share of rows")


def _labels(per_label: dict[str, dict[str, Any]]) -> Grid:
    worst = sorted(per_label.items(), key=lambda item: (item[1]["f1"], -item[1]["support"]))
    rows = [
        (
            label,
            metrics_of_label["support"],
            metrics_of_label["precision"],
            metrics_of_label["recall"],
            metrics_of_label["f1"],
        )
        for label, metrics_of_label in worst
    ]
    note = f" (the {_LABELS_SHOWN} worst of {len(rows)})" if len(rows) > _LABELS_SHOWN else ""
    headings = ("label", "support", "precision", "recall", "F1")
    return Grid(headings, rows[:_LABELS_SHOWN], f"By label, worst first{note}")


def _confused(confusion: dict[str, dict[str, int]]) -> list[tuple[str, str, int]]:
    pairs = [
        (label, answer, count) for label, row in confusion.items() for answer, count in row.items() if answer != label
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:_PAIRS_SHOWN]
