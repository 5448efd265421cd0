"""How a job ended, for people: a sentence, facts, and the next commands. Pure, except for the printing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from labelmill.cli.figures import between, count, counts, duration, money, share
from labelmill.cli.tables import print_pairs
from labelmill.contracts.amounts import written
from labelmill.contracts.errors import CapReached, RequestRefused
from labelmill.services.evaluations import is_of_training_rows
from labelmill.services.results.formats import Output

Document = Mapping[str, Any]

#: Why rows fail that would fail again: they are empty, or Mistral refused what they say.
_FOR_GOOD = {"empty_text", RequestRefused.code}
_PARTS = ("labelled", "abstained", "failed", "cancelled", "pending")


@dataclass(frozen=True)
class Summary:
    """`steps`: what a command is for, and the command."""

    headline: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    steps: list[tuple[str, str]] = field(default_factory=list)


def print_summary(console: Console, summary: Summary) -> None:
    """Print a summary. Commands are not wrapped, so that they can be copied."""
    console.print(summary.headline, soft_wrap=True)
    print_pairs(console, [(f"  {name}", value) for name, value in summary.facts if value])
    for purpose, command in summary.steps:
        console.print(f"{purpose}: {command}", soft_wrap=True)


def summary_of(document: Document, output: Output | None = None) -> Summary:
    """Of a job that ended or waits for a person. `output`: where the rows of a batch were written."""
    if document["kind"] == "batch":
        return _of_batch(document, output)
    return _OF_KIND[document["kind"]](document)


def summary_of_submission(document: Document) -> Summary:
    """Of a job that was just submitted, approved or cancelled."""
    job_id = document["id"]
    state = str(document["state"]).replace("_", " ")
    return Summary(f"{job_id} is {state}", steps=[("follow it", f"labelmill watch {job_id}")])


def _headline(document: Document, about: str = "") -> str:
    state = str(document["state"]).replace("_", " ")
    error = f": {document['error']}" if document.get("error") else ""
    return f"{document['id']} {state}{f': {about}' if about and not error else ''}{error}"


def _took(document: Document, start: str = "created_at") -> str:
    seconds = between(document.get(start), document.get("finished_at"))
    return "" if seconds is None else duration(seconds)


def _of_dataset(document: Document) -> Summary:
    name = f"{document['name']}@{document['version']}" if document["version"] else document["name"]
    if document["state"] != "ready":
        return Summary(_headline(document), steps=[_details(document)])
    about = f"dataset {name}" + (f", the same rows as {document['repeats']}" if document["repeats"] else "")
    labels = {
        target: len({label for split in labels_of_target.values() for label in split})
        for target, labels_of_target in (document["labels"] or {}).items()
    }
    facts = [
        ("rows", ", ".join(f"{split} {rows:,}" for split, rows in (document["splits"] or {}).items())),
        ("labels", ", ".join(f"{target} {labels_of_target:,}" for target, labels_of_target in labels.items())),
        ("dropped", counts(document["dropped"] or {})),
        ("took", _took(document)),
    ]
    return Summary(
        _headline(document, about),
        facts,
        [
            ("train on it", f"labelmill train {document['name']} --dataset {name} --wait"),
            ("report", f"labelmill report {document['id']} -o report.html"),
        ],
    )


def _of_training(document: Document) -> Summary:
    job_id, estimate = document["id"], document["estimate"]
    if document["state"] == "awaiting_approval":
        price = money(estimate)
        facts = [("texts", f"{estimate['texts']:,}" if estimate and estimate.get("texts") is not None else "")]
        if estimate and estimate.get("tokens") is not None:
            facts.append(("tokens", f"about {estimate['tokens']:,}"))
        if document["max_cost"] is not None:
            facts.append(("allowed", f"{written(document['max_cost'])} USD"))
        return Summary(
            f"{job_id} waits for approval",
            facts,
            [
                (f"costs about {price}" if price else "costs an unknown amount", f"labelmill approve {job_id} --wait"),
                ("or stop it", f"labelmill cancel {job_id}"),
            ],
        )
    facts = [("cost", _cost(document["cost"])), ("took", _took(document))]
    if document["state"] != "succeeded":
        return Summary(_headline(document), facts, [*_go_on(document), _details(document)])
    model = document["model"]
    found = document["details"] or {}
    facts += [("prompt", found[name]["said"]) for name in ("candidates", "texts_per_prompt") if name in found]
    if (left_out := found.get("left_out")) and left_out["rows"]:
        facts.append(("left out", f"{count(left_out['rows'], 'rows')} of the dataset: {left_out['reason']}"))
    for name, target in (found.get("targets") or {}).items():
        facts += [("precision", precision["said"]) for precision in target.get("precisions", ())]
        if suspected := (target.get("suspects") or {}).get("suspected"):
            facts.append(
                ("labels", f"of {name} {count(suspected, 'rows')} of train are probably wrong: see the report")
            )
    return Summary(
        _headline(document, f"{model} by {document['method']}"),
        facts,
        [
            ("measure it", f"labelmill evaluate {model} --dataset NAME --wait"),
            ("classify", f"labelmill classify FILE --model {model} --wait -o labelled.csv"),
            ("report", f"labelmill report {job_id} -o report.html"),
        ],
    )


def _of_batch(document: Document, output: Output | None) -> Summary:
    job_id, rows, left = document["id"], document["rows"], document["tokens_left_of_month"]
    parts = [f"{rows[name]:,} {name}" for name in _PARTS if rows[name]]
    seconds = between(document.get("started_at"), document.get("finished_at"))
    done = rows["labelled"] + rows["abstained"] + rows["failed"]
    rate = f", {done / seconds:,.0f} rows/s" if seconds and done else ""
    facts = [
        ("rows", f"{rows['submitted']:,}: {', '.join(parts)}" if parts else "none"),
        ("failed", counts(document.get("failures") or {})),
        ("left out", count(document["skipped"], "rows") + " that could not be read" if document["skipped"] else ""),
        ("requests", _requests(document)),
        ("cost", _cost(document["cost"])),
        ("this month", "" if left is None else f"{left:,} tokens left for {document['remote_model']}"),
        ("took", "" if seconds is None else f"{duration(seconds)}{rate}"),
        ("written", str(output) if output is not None else ""),
    ]
    steps = []
    if output is None and done:
        steps.append(("rows", f"labelmill results {job_id} -o labelled.csv"))
    if rows["failed"]:
        steps.append(("failed rows", f"labelmill results {job_id} --only failed"))
    fails_again = document["state"] == "completed" and set(document.get("failures") or {"": 1}) <= _FOR_GOOD
    if (rows["failed"] or document["state"] in ("failed", "paused")) and not fails_again:
        steps.append(("run them again" if rows["failed"] else "go on", _retry(document)))
    if rows["abstained"]:
        steps.append(("abstained rows", f"labelmill results {job_id} --only abstained"))
    return Summary(_headline(document, document["model"]), facts, [*steps, _report(document)])


def _of_evaluation(document: Document) -> Summary:
    summary = document["summary"] or {}
    trained_on = is_of_training_rows(document)
    facts = [
        (target, _figures(metrics, trained_on=trained_on)) for target, metrics in (document["metrics"] or {}).items()
    ]
    if trained_on and document["metrics"]:
        facts.append(("careful", "the model was trained on these rows: this says nothing about other rows"))
    if summary:
        answered = f"{summary['answered']:,} of {summary['rows']:,} answered"
        facts += [
            ("rows", answered + (f", {summary['failed']:,} failed" if summary["failed"] else "")),
            ("failed", counts(summary.get("failures") or {})),
            ("requests", _requests(summary)),
            ("cost", _cost(summary.get("cost"))),
        ]
    facts.append(("took", _took(document)))
    about = f"{document['model']} on {document['dataset']} {document['split']}"
    return Summary(
        _headline(document, about),
        facts,
        [_report(document)] if document["state"] == "completed" else [*_go_on(document), _details(document)],
    )


def _figures(metrics: Document, *, trained_on: bool = False) -> str:
    intervals = {} if trained_on else metrics.get("intervals") or {}
    shown = [("accuracy", "accuracy"), ("macro F1", "macro_f1")]
    if metrics.get("multi"):
        shown = [("micro F1", "micro_f1"), ("macro F1", "macro_f1"), ("all labels right", "accuracy")]
    return ", ".join(
        f"{name} {share(metrics[key], intervals.get(key))}" for name, key in shown if metrics.get(key) is not None
    )


def _requests(counted: Document) -> str:
    tokens = f", {count(counted['tokens'], 'tokens')}" if counted["tokens"] else ""
    return f"{counted['requests']:,}{tokens}" if counted["requests"] else ""


def _cost(cost: Mapping[str, Any] | None) -> str:
    paid = money(cost)
    if not paid or cost is None:
        return ""
    tokens = f" for {cost['tokens']:,} tokens" if cost.get("tokens") else ""
    return f"about {paid}{tokens}" if cost.get("estimated") or cost.get("counted") else f"{paid}{tokens}"


def _report(document: Document) -> tuple[str, str]:
    return "report", f"labelmill report {document['id']} -o report.html"


def _go_on(document: Document) -> list[tuple[str, str]]:
    """How a training or an evaluation goes on that stopped at a cap."""
    return [("go on", _retry(document))] if document["error_code"] == CapReached.code else []


def _retry(document: Document) -> str:
    more = " --max-cost USD" if document["error_code"] == CapReached.code and document["max_cost"] is not None else ""
    return f"labelmill retry {document['id']}{more} --wait"


def _details(document: Document) -> tuple[str, str]:
    return "details", f"labelmill status {document['id']}"


_OF_KIND: dict[str, Callable[[Document], Summary]] = {
    "dataset": _of_dataset,
    "training": _of_training,
    "evaluation": _of_evaluation,
}
