"""The report of a model whose scores are 1 and 0 leaves out what rests on scores."""

from __future__ import annotations

from typing import Any

import pytest
from asked import gather_report
from sqlalchemy import insert
from sqlalchemy.engine import Engine

from labelmill.core.database import writing
from labelmill.core.database.analysis_codec import save_analysis
from labelmill.core.database.tables import EvaluationRow, ModelRow
from labelmill.core.money.prices import LISTED
from labelmill.report.page import page_of
from labelmill.report.parts import Grid, Report

_ID = "eval_00000000000000000000aaaa"
_CELL = {"true_positive": 5, "false_positive": 1, "false_negative": 1, "true_negative": 5}


def report_of(engine: Engine, confidences: list[float], *, multi: bool, **measured: float) -> Any:
    metrics = {
        "rows": 12,
        "answered": 12,
        "accuracy": 0.75,
        "macro_f1": 0.7,
        "micro_f1": 0.7,
        "log_loss": 8.6,
        "brier": 0.5,
        "ece": 0.25,
        "per_label": {"play": {"support": 6, "precision": 0.8, "recall": 0.8, "f1": 0.8}},
        "confusion": {"play": _CELL} if multi else {"play": {"play": 5, "stop": 1}, "stop": {"stop": 6}},
        **measured,
    }
    spread = len(confidences) > 2
    analysis = {
        "multi": multi,
        "rows": 12,
        "truth": {"play": 6, "stop": 6},
        "given": {"play": 5, "stop": 7},
        "reliability": [{"confidence": one, "accuracy": 0.75, "rows": 4} for one in confidences],
        "coverage": [{"threshold": n / 4, "coverage": 1 - n / 4 * spread, "accuracy": 0.75} for n in range(4)],
        "histogram": [4 * spread, 0, 0, 12],
    }
    with writing(engine) as connection:
        connection.execute(insert(ModelRow).values(no=1, name="m", version=1, method="prompt", label_schema=[]))
        connection.execute(
            insert(EvaluationRow).values(
                id=_ID,
                state="completed",
                model_no=1,
                model_ref="m@1",
                dataset_id="prep_1",
                dataset_ref="d@1",
                split="test",
                metrics={"intent": metrics},
            )
        )
        save_analysis(connection, _ID, {"targets": {"intent": analysis}})
    return gather_report(engine, _ID, LISTED)


@pytest.mark.parametrize(("confidences", "multi"), [([1.0], False), ([0.0, 1.0], True)])
def test_what_rests_on_scores_is_left_out_where_they_are_1_and_0(
    engine: Engine, confidences: list[float], multi: bool
) -> None:
    report = report_of(engine, confidences, multi=multi)
    names = {figure.name for figure in report.figures()}
    assert not names & {"intent-reliability", "intent-coverage", "intent-scores"}
    assert "intent-labels" in names
    page = page_of(report)
    for words in ("log-loss", "Brier", "calibration error", "--calibrate"):
        assert words not in page
    assert "Its scores are 1 and 0 alone" in page


def test_scores_that_differ_are_shown(engine: Engine) -> None:
    report = report_of(engine, [0.2, 0.6, 0.9], multi=False)
    names = {figure.name for figure in report.figures()}
    assert {"intent-reliability", "intent-coverage", "intent-scores"} <= names
    assert "log-loss" in page_of(report)


@pytest.mark.parametrize(("by_luck", "warned"), [(0.3, False), (0.2, True)])
def test_scores_are_only_called_wrong_beyond_what_luck_makes(engine: Engine, by_luck: float, warned: bool) -> None:
    report = report_of(engine, [0.2, 0.6, 0.9], multi=False, ece=0.25, ece_by_luck=by_luck)
    assert ("do not say how often it is right" in page_of(report)) is warned


def test_a_narrow_column_breaks_a_label_between_its_words() -> None:
    labels = ["cancel_order/late", "cancelOrder", "a&b", "R&amp;D", "x"]
    page = page_of(Report("t", "s", [Grid(("label", "rows"), [(label, 1) for label in labels])]))
    for shown in ("cancel_<wbr>order/<wbr>late", "cancel<wbr>Order", "a&amp;b", "R&amp;amp;D"):
        assert f">{shown}</td>" in page
