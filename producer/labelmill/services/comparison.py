"""Models side by side on the same rows: tests against the best, and the cheapest that is not worse.

The maths are pure; `compare_evaluations` reads what evaluations have left in SQL. Which rows each model got right, and
which it was trained on, stands in its evaluation, a bit a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.engine import Connection

from labelmill.contracts.bounds import shown
from labelmill.contracts.documents.comparison import AgainstBest, ComparedModel, ComparisonDocument, Judgement
from labelmill.contracts.documents.jobs import EvaluationDocument
from labelmill.contracts.errors import InvalidInput, NotFound
from labelmill.contracts.field_names import named
from labelmill.contracts.states import EvaluationState
from labelmill.core.database import reading
from labelmill.core.database.analysis_codec import load_analysis, unpack_bits
from labelmill.core.database.tables import DatasetRow, EvaluationRow, ModelRow
from labelmill.core.paired_loss import largest_loss
from labelmill.core.proportions import wilson_interval
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.documents import status_document
from labelmill.services.paired_tests import Bools, McNemar, against_each_other

LEVEL = 0.05  #: The significance level: a smaller p-value is a difference.

_SHOWN = (
    "accuracy",
    "macro_f1",
    "weighted_f1",
    "micro_f1",
    "log_loss",
    "brier",
    "ece",
    "intervals",
    "answered",
    "abstained",
    "failed",
    "rows",
)


@dataclass(frozen=True)
class Contender:
    """A model with the rows it got right; `cost` is of 1,000 texts, None where it is not known."""

    model: str
    right: Bools
    cost: float | None

    @property
    def accuracy(self) -> float:
        """The share of rows it got right."""
        return float(self.right.mean()) if len(self.right) else 0.0

    def interval(self) -> list[float]:
        """The 95 % interval of the accuracy."""
        return wilson_interval(self.accuracy, len(self.right))


def judge(contenders: Sequence[Contender], level: float = LEVEL, margin: float | None = None) -> Judgement:
    """`{"best", "cheapest_not_worse", "comparisons", …}`: every model against the best.

    `p_value` is of the one test, `p_adjusted` of all pairs of models together. `largest_losses`: how much accuracy the
    rows still allow a model to lose against any other, with a chance of 1 - `level` for all models at once. With a
    `margin` a model is good enough where that is no more than the margin, the best too; else where it is not
    significantly worse than the best.
    """
    best = max(
        contenders,
        key=lambda contender: (contender.accuracy, -(math.inf if contender.cost is None else contender.cost)),
    )
    tests = against_each_other([contender.right for contender in contenders])
    at_best = contenders.index(best)
    losses = _largest_losses(tests, len(contenders), len(best.right), level)
    comparisons: list[AgainstBest] = []
    significantly_worse: set[int] = set()
    for at, contender in enumerate(contenders):
        if contender is best:
            continue
        test, adjusted = tests[at, at_best]
        worse = adjusted < level and contender.accuracy < best.accuracy
        if worse:
            significantly_worse.add(at)
        comparisons.append(
            {
                "model": contender.model,
                "against": best.model,
                "only_this_right": test.only_first,
                "only_best_right": test.only_second,
                "p_value": test.p_value,
                "p_adjusted": adjusted,
                "test": test.test,
                "significantly_worse": worse,
            }
        )
    good = [
        contender
        for at, contender in enumerate(contenders)
        if (losses[at] <= margin if margin is not None else at not in significantly_worse)
    ]
    priced = [
        (contender.cost, -contender.accuracy, contender.model) for contender in good if contender.cost is not None
    ]
    return {
        "best": best.model,
        "rows": len(best.right),
        "margin": margin,
        "accuracies": {contender.model: contender.accuracy for contender in contenders},
        "intervals": {contender.model: contender.interval() for contender in contenders},
        "largest_losses": {contender.model: loss for contender, loss in zip(contenders, losses, strict=True)},
        "cheapest_not_worse": min(priced)[2] if priced else None,
        "not_worse": [contender.model for contender in good],
        "without_cost": [contender.model for contender in good if contender.cost is None],
        "comparisons": comparisons,
    }


def _largest_losses(
    tests: Mapping[tuple[int, int], tuple[McNemar, float]], models: int, rows: int, level: float
) -> list[float]:
    """For each model the largest loss against any other: the measured best need not be the true best."""
    each = level / max(1, models - 1)
    losses_by_model = []
    for this in range(models):
        others = [tests[this, other][0] for other in range(models) if other != this]
        losses = [largest_loss(test.only_second, test.only_first, rows, each) for test in others]
        losses_by_model.append(max(losses, default=0.0))
    return losses_by_model


@dataclass(frozen=True)
class ComparisonRequest:
    """The evaluations to compare. A smaller p-value than `level` is a difference; `margin`: the acceptable loss of
    accuracy, as a share of rows."""

    evaluations: Sequence[str]
    level: float = LEVEL
    margin: float | None = None


def comparison(context: ServiceContext, request: ComparisonRequest) -> ComparisonDocument:
    """Models side by side, by their evaluations. Raises NotFound, InvalidInput."""
    with reading(context.engine) as connection:
        return compare_evaluations(connection, request.evaluations, request.level, request.margin)


def compare_evaluations(
    connection: Connection, job_ids: Sequence[str], level: float = LEVEL, margin: float | None = None
) -> ComparisonDocument:
    """The document of `labelmill compare --json`. Raises InvalidInput when the models have no target in common."""
    if not 0 <= level <= 1:
        raise InvalidInput(f"{named('level')} must be between 0 and 1")
    if margin is not None and not 0 <= margin <= 1:
        raise InvalidInput(f"{named('margin')} must be a share of rows between 0 and 1, such as 0.02")
    if not job_ids:
        raise InvalidInput("name the evaluations to compare", field="evaluations")
    evaluations = [_evaluation(connection, job_id) for job_id in job_ids]
    done = [entry for entry in evaluations if entry["state"] == EvaluationState.COMPLETED.value]
    methods = _methods(connection, job_ids)
    document: ComparisonDocument = {
        "dataset": evaluations[0]["dataset"],
        "fingerprint": _fingerprint(connection, job_ids[0]),
        "split": evaluations[0]["split"],
        "level": level,
        "margin": margin,
        "models": [_entry(entry, methods[entry["id"]]) for entry in evaluations],
        "targets": {},
        "overall": None,
        "warnings": [],
        "verdict": None,
    }
    if not done:
        return document
    analyses = {entry["id"]: load_analysis(connection, entry["id"])["targets"] for entry in done}
    shared = [name for name in done[0]["metrics"] or () if all(name in (entry["metrics"] or ()) for entry in done)]
    if not shared:
        raise InvalidInput("the models have no target in common: there is nothing to compare", field="models")
    found_rights = Rights.of(analyses, shared)
    for name in shared:
        judged = judge(_contenders(done, found_rights.right(name)), level, margin)
        judged["multi"] = analyses[done[0]["id"]][name]["multi"]
        document["targets"][name] = judged
    overall = document["targets"][shared[0]]
    if len(shared) > 1:
        overall = judge(_contenders(done, found_rights.all_right()), level, margin)
    document["overall"] = overall
    document["warnings"] = _warnings(done, found_rights)
    document["verdict"] = verdict_of(overall, evaluations)
    return document


@dataclass(frozen=True)
class Rights:
    """Which rows each evaluation got right, by target, without `left_out`: rows of the split whose text one of the
    models was trained on. A model has an advantage there, and the result says nothing about new texts."""

    rows_of: Mapping[str, NDArray[np.int64]]  #: target → the rows of the split that have a label for it.
    rights: Mapping[str, Mapping[str, Bools]]  #: target → evaluation → whether each of these rows is right.
    left_out: NDArray[np.int64]
    all_seen: bool  #: Nothing is left out then, because nothing would remain to be compared.

    @classmethod
    def of(cls, analyses: Mapping[str, Mapping[str, Any]], shared: Sequence[str]) -> Rights:
        first = next(iter(analyses.values()))
        rows_of = {name: np.array(first[name]["has_truth"], np.int64) for name in shared}
        seen_rows = [
            rows_of[name][unpack_bits(targets[name]["seen"], targets[name]["rows"])]
            for targets in analyses.values()
            for name in shared
            if "seen" in targets[name]
        ]
        left_out = np.unique(np.concatenate(seen_rows)) if seen_rows else np.empty(0, np.int64)
        all_seen = bool(len(left_out)) and any(np.isin(rows, left_out).all() for rows in rows_of.values())
        rights = {
            name: {
                job_id: unpack_bits(analysis[name]["correct"], analysis[name]["rows"])
                for job_id, analysis in analyses.items()
            }
            for name in shared
        }
        return cls(rows_of, rights, np.empty(0, np.int64) if all_seen else left_out, all_seen)

    def right(self, target: str) -> dict[str, Bools]:
        """evaluation → which of the target's compared rows it got right."""
        compared = ~np.isin(self.rows_of[target], self.left_out)
        return {job_id: right[compared] for job_id, right in self.rights[target].items()}

    def all_right(self) -> dict[str, Bools]:
        """evaluation → which rows are right in every target; rows without truth for one of them do not count."""
        common = reduce(np.intersect1d, self.rows_of.values())
        common = common[~np.isin(common, self.left_out)]
        within = {name: np.isin(rows, common) for name, rows in self.rows_of.items()}
        return {
            job_id: np.logical_and.reduce([self.rights[name][job_id][within[name]] for name in within])
            for job_id in next(iter(self.rights.values()))
        }


def _warnings(done: Sequence[Mapping[str, Any]], rights: Rights) -> list[str]:
    """The warnings that a reader of the comparison needs."""
    seen_rows = {evaluation["model"]: evaluation["summary"].get("seen_in_training") for evaluation in done}
    named = ", ".join(f"{model} {count:,}" for model, count in seen_rows.items() if count)
    if not named:
        return []
    if rights.all_seen:
        warning = (
            f"models were trained on rows of this split ({named}), and no row is left that none of them has seen: the "
            "figures say nothing about texts to come. Compare on a dataset that no model was trained on"
        )
    elif not len(rights.left_out):  # evaluations of an earlier version do not say which rows these are
        warning = (
            f"models were trained on rows of this split ({named}), which are compared too: evaluate the models again"
        )
    else:
        warning = (
            f"models were trained on rows of this split ({named}): {len(rights.left_out):,} left out of the "
            "comparison. Macro F1, log-loss and ECE are each model's own, on every row"
        )
    return [warning]


def _evaluation(connection: Connection, job_id: str) -> EvaluationDocument:
    document = status_document(connection, job_id)
    if document["kind"] != "evaluation":
        raise NotFound(f"no evaluation has the id {shown(job_id)}")
    return document


def _fingerprint(connection: Connection, job_id: str) -> str | None:
    return connection.scalar(
        select(DatasetRow.fingerprint)
        .join(EvaluationRow, EvaluationRow.dataset_id == DatasetRow.id)
        .where(EvaluationRow.id == job_id)
    )


def _methods(connection: Connection, job_ids: Sequence[str]) -> dict[str, str]:
    statement = select(EvaluationRow.id, ModelRow.method).join(ModelRow, ModelRow.no == EvaluationRow.model_no)
    return {row.id: row.method for row in connection.execute(statement.where(EvaluationRow.id.in_(job_ids)))}


def _entry(evaluation: Mapping[str, Any], method: str) -> ComparedModel:
    summary = evaluation["summary"] or {}
    return {
        "model": evaluation["model"],
        "method": method,
        "evaluation": evaluation["id"],
        "state": evaluation["state"],
        "error": evaluation["error"],
        "rows": summary.get("rows"),
        "seen_in_training": summary.get("seen_in_training"),
        "failed": summary.get("failed"),
        "cost_per_1000": summary.get("cost_per_1000"),
        "seconds_per_1000": summary.get("seconds_per_1000"),
        "targets": {
            name: {key: metrics[key] for key in _SHOWN if key in metrics}
            for name, metrics in (evaluation["metrics"] or {}).items()
        },
    }


def _contenders(done: Sequence[Mapping[str, Any]], right: Mapping[str, Bools]) -> list[Contender]:
    costs = [evaluation["summary"]["cost_per_1000"] for evaluation in done]
    one_currency = len({cost["currency"] for cost in costs if cost}) == 1
    return [
        Contender(evaluation["model"], right[evaluation["id"]], cost["amount"] if cost and one_currency else None)
        for evaluation, cost in zip(done, costs, strict=True)
    ]


def verdict_of(overall: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> str:
    """A recommendation in one sentence."""
    best, cheapest = overall["best"], overall["cheapest_not_worse"]
    unfinished = [
        evaluation["model"] for evaluation in evaluations if evaluation["state"] != EvaluationState.COMPLETED.value
    ]
    also = f" ({', '.join(unfinished)} could not be measured)" if unfinished else ""
    if len(overall["accuracies"]) == 1:
        return f"only {best} was measured{also}"
    if overall["margin"] is not None:
        return _within_margin(overall, overall["margin"], also)
    if cheapest is None:
        return f"{best} is the best; what its rivals cost is not known{also}"
    if cheapest == best:
        why = "every other model is significantly worse"
        if len(overall["not_worse"]) > 1:
            why = "it is also the cheapest that is not worse"
        return f"take {best}: it is the best, and {why}{also}"
    compared = next(evaluation for evaluation in overall["comparisons"] if evaluation["model"] == cheapest)
    return (
        f"take {cheapest}: it is the cheapest, and not significantly worse than the best, {best} "
        f"(p = {compared['p_adjusted']:.2g}), but these rows still allow that it loses up to "
        f"{overall['largest_losses'][cheapest]:.1%} of accuracy{also}"
    )


def _within_margin(overall: Mapping[str, Any], margin: float, also: str) -> str:
    best, cheapest, losses = overall["best"], overall["cheapest_not_worse"], overall["largest_losses"]
    if not overall["not_worse"]:
        return (
            f"take more rows: of no model do these show that it loses at most {margin:.1%} of accuracy; of {best}, the "
            f"best here, they allow a loss of up to {losses[best]:.1%}{also}"
        )
    if cheapest is None:
        within = ", ".join(overall["not_worse"])
        return f"{within} surely lose at most {margin:.1%} of accuracy; what they cost is not known{also}"
    return (
        f"take {cheapest}: it is the cheapest that surely loses at most {margin:.1%} of accuracy (these rows allow up "
        f"to {losses[cheapest]:.1%}){also}"
    )
