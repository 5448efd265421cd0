"""`labelmill compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from labelmill.cli.context import (
    connected,
    exit_for,
    lost_reads,
    messages,
    print_json,
    say,
    say_detached,
    say_warnings,
    submit,
    tables,
    wants_json,
)
from labelmill.cli.figures import count
from labelmill.cli.options import MAIN, AsJson, DatasetRef, IdempotencyKey, Metadata, SplitName, parse_metadata
from labelmill.cli.progress import follow
from labelmill.cli.tables import print_rows
from labelmill.contracts.documents.comparison import AgainstBest, ComparedModel, ComparisonDocument, Judgement
from labelmill.contracts.documents.parts import Money
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.exit_codes import DETACHED
from labelmill.contracts.job_kinds import ENDED
from labelmill.services.context import ServiceContext
from labelmill.services.evaluations import CompareRequest, accept_comparison
from labelmill.services.jobs.documents import job_status
from labelmill.services.jobs.requests import JobRequest

_SCORED = {"macro F1": "macro_f1", "log-loss": "log_loss", "ECE": "ece"}  #: Heading → metric.
_STORAGE = (
    "costs are of the texts alone: what a training cost, and the monthly fee of Mistral's for storing a fine-tuned "
    "model, come on top"
)


def register(app: typer.Typer) -> None:
    """Add `compare`."""
    example = "Example: labelmill compare intents@1 intents@2 --dataset intents"
    app.command("compare", rich_help_panel=MAIN, epilog=example)(compare)


def compare(
    refs: Annotated[list[str], typer.Argument(metavar="REF…", help="Two models or more: intents, intents@2, ….")],
    dataset: DatasetRef,
    split: SplitName = "test",
    level: Annotated[float, typer.Option(min=0, max=1, help="A smaller p-value is a difference.")] = 0.05,
    margin: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Accept a model that surely loses no more accuracy than this, such as 0.02."),
    ] = None,
    idempotency_key: IdempotencyKey = None,
    metadata: Metadata = None,
    max_cost: Annotated[
        float | None,
        typer.Option(metavar="USD", help="Stop each new evaluation before it may cost more.", show_default="no limit"),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the evaluations to their end; Ctrl-C detaches.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Put models side by side on the same rows.

    Names the cheapest that is not significantly worse than the best, or with --margin the
    cheapest that surely loses no more accuracy than that. Each is evaluated once; evaluations
    that are there already are used again.
    """
    if len(set(refs)) < 2:
        raise InvalidInput("name two models or more: labelmill compare intents@1 intents@2 --dataset NAME")
    request = CompareRequest(refs, dataset, split, idempotency_key, parse_metadata(metadata), max_cost)
    context = connected()
    comparable = accept_comparison(context, request)
    begun = [submit(context, accepted) for accepted in comparable.accepted]
    say_warnings(warning for evaluation in begun for warning in evaluation.warnings)
    ids = comparable.evaluations
    documents: list[Mapping[str, Any]]
    documents = _wait_for(context, ids) if wait else [job_status(context, JobRequest(job_id)) for job_id in ids]
    if not wait and any(evaluation["state"] not in ENDED for evaluation in documents):
        under_way = [{key: evaluation[key] for key in ("id", "kind", "state", "model")} for evaluation in documents]
        if wants_json(as_json):
            print_json({"evaluations": under_way})
        else:
            print_rows(
                tables(),
                ("id", "state", "model"),
                [(evaluation["id"], evaluation["state"], evaluation["model"]) for evaluation in under_way],
            )
        return
    # imports NumPy, which other commands do not need
    from labelmill.services.comparison import ComparisonRequest, comparison  # noqa: PLC0415

    document = comparison(context, ComparisonRequest(ids, level, margin))
    for warning in document["warnings"]:
        say("warning", "yellow", warning)
    if wants_json(as_json):
        print_json(document)
    else:
        for name, judged in _judged(document).items():
            _print_table(document, name, judged)
        tables().print(document["verdict"] or "nothing could be compared", soft_wrap=True)
        if any(evaluation["method"] == "factory" for evaluation in document["models"]):
            tables().print(_STORAGE, soft_wrap=True)
    for evaluation in sorted(documents, key=_is_measured):  # one that failed counts more than failed rows
        exit_for(evaluation)


def _is_measured(evaluation: Mapping[str, Any]) -> bool:
    return bool(evaluation["state"] == "completed")


def _wait_for(context: ServiceContext, ids: Sequence[str]) -> list[Mapping[str, Any]]:
    try:
        return [follow(context, job_id, messages(), lost_reads) for job_id in ids]
    except KeyboardInterrupt:
        say_detached(
            f"detached; the evaluations go on ({' '.join(ids)}): the same command shows them when they are done"
        )
        raise typer.Exit(DETACHED) from None


def _judged(document: ComparisonDocument) -> dict[str, Judgement]:
    judged = dict(document["targets"])
    if len(judged) > 1 and document["overall"]:
        judged["all targets"] = document["overall"]
    return judged


def _print_table(document: ComparisonDocument, name: str, judged: Judgement) -> None:
    title = f"{name}, {document['dataset']} {document['split']}, {judged['rows']:,} rows"
    of_one = name in document["targets"]
    scored = {"micro F1": "micro_f1", **_SCORED} if judged.get("multi") else _SCORED if of_one else {}
    right = "accuracy" if of_one and not judged["multi"] else "all labels right"
    rows = []
    against = {compared["model"]: compared for compared in judged["comparisons"]}
    for compared in sorted(document["models"], key=lambda compared: -judged["accuracies"].get(compared["model"], -1)):
        model, metrics = compared["model"], compared["targets"].get(name, {})
        intervals = metrics.get("intervals", {})
        rows.append(
            (
                model,
                _figure(judged["accuracies"].get(model), judged["intervals"].get(model)),
                *(_figure(metrics.get(key), intervals.get(key)) for key in scored.values()),
                _money(compared["cost_per_1000"]),
                _figure(compared["seconds_per_1000"]),
                f"{against[model]['p_adjusted']:.2g}" if model in against else "",
                _figure(judged["largest_losses"].get(model)),
                _remark(compared, judged, against.get(model)),
            )
        )
    headings = ("model", right, *scored, "cost of 1,000", "s for 1,000", "p", "may lose", "verdict")
    print_rows(tables(), headings, rows, flowing=("verdict",), title=title)


def _remark(entry: ComparedModel, judged: Judgement, compared: AgainstBest | None) -> str:
    if entry["model"] not in judged["accuracies"]:
        return f"{entry['state']}: {entry['error'] or 'not measured'}"
    words = ["best"] if entry["model"] == judged["best"] else []
    if compared is not None:
        words.append("significantly worse" if compared["significantly_worse"] else "not significantly worse")
    if entry["model"] == judged["cheapest_not_worse"]:
        words.append("the cheapest that is not worse" if judged["margin"] is None else "the cheapest within the margin")
    if entry["failed"]:
        words.append(f"{count(entry['failed'], 'rows')} failed")
    return ", ".join(words)


def _figure(value: float | None, interval: list[float] | None = None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _money(cost: Money | None) -> str:
    return f"{cost['amount']:.4f} {cost['currency']}" if cost else "not known"
