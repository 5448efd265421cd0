"""`labelmill classify`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from labelmill.cli.context import (
    connected,
    exit_for,
    finish_submission,
    finish_wait,
    follow_or_detach,
    lost_reads,
    messages,
    say_warnings,
    settings,
    submit,
)
from labelmill.cli.options import (
    MAIN,
    AsJson,
    Bom,
    Delimiter,
    Encoding,
    IdempotencyKey,
    Keep,
    MaxCost,
    Metadata,
    NoEscape,
    OnBadRow,
    OutputDelimiter,
    QuotingOption,
    Scores,
    Wait,
    parse_metadata,
)
from labelmill.cli.progress import bar
from labelmill.cli.results import labels_are_shown, save, show_labels
from labelmill.contracts.bounds import shown
from labelmill.contracts.errors import InvalidInput
from labelmill.core.storage.opening import remote_files
from labelmill.services.batches import ClassifyRequest, accept_batch
from labelmill.services.results.formats import output_of
from labelmill.services.results.saving import OutputOptions, SaveRequest, check_save


def register(app: typer.Typer) -> None:
    """Add `classify`."""
    example = "Example: labelmill classify texts.csv --model intents --text body --id ticket --wait -o labelled.csv"
    app.command("classify", rich_help_panel=MAIN, epilog=example)(classify)


def classify(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A .jsonl, .csv or .parquet file (also .gz), a quoted glob, s3://…, or - for stdin."
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="REF",
            help="intents (the promoted version), intents@2, or a Mistral id: ft:classifier:… or mistral-moderation-….",
        ),
    ],
    text: Annotated[str, typer.Option(metavar="COL", help="Column of the texts.")] = "text",
    id_column: Annotated[
        str | None, typer.Option("--id", metavar="COL", help="Column of your own ids.", show_default="the row number")
    ] = None,
    mode: Annotated[str, typer.Option(help="realtime, batch (half the price), or auto.")] = "realtime",
    deadline: Annotated[
        str | None, typer.Option(metavar="90m|2h|1d", help="With --mode auto: when the batch has to be done.")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(help="Minimum of the best score: 0.7, or TARGET=0.7; below it a row abstains. Repeatable."),
    ] = None,
    multi: Annotated[
        list[str] | None, typer.Option(help="A multi-label target of a raw Mistral id. Repeatable.")
    ] = None,
    chats: Annotated[
        bool, typer.Option("--chats", help="A raw Mistral id that was trained on chats (lists of messages).")
    ] = False,
    priority: Annotated[str, typer.Option(help="high, normal or low.")] = "normal",
    cache: Annotated[
        bool, typer.Option("--cache", help="Reuse answers that earlier batches of this model version had.")
    ] = False,
    on_bad_row: Annotated[
        OnBadRow, typer.Option(help="Whether rows that cannot be read fail the submission or are left out and counted.")
    ] = OnBadRow.FAIL,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    quoting: QuotingOption = None,
    idempotency_key: IdempotencyKey = None,
    metadata: Metadata = None,
    max_cost: MaxCost = None,
    wait: Wait = False,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="With --wait: write the results here when done; also s3://BUCKET/KEY.",
        ),
    ] = None,
    scores: Scores = None,
    keep: Keep = None,
    output_delimiter: OutputDelimiter = None,
    bom: Bom = False,
    no_escape: NoEscape = False,
    as_json: AsJson = False,
) -> None:
    """Classify every text of SOURCE with a model.

    Tells id, kind and state; with --wait, how it ended, or on a terminal the labels of texts that came on standard
    input.
    """
    arguments = dict(locals())  # first: the arguments are all that is there
    # everything is checked before anything is written or paid for
    if output is not None and not wait:
        raise InvalidInput("-o goes with --wait; without it, `labelmill results ID -o FILE` writes them later")
    if output is None and (scores or keep):
        raise InvalidInput("--scores and --keep go with -o FILE; `labelmill results ID` takes them too")
    request = request_of(arguments)
    target = None if output is None else output_of(output)
    options = OutputOptions.of(
        target, scores=scores, keep=keep, output_delimiter=output_delimiter, bom=bom, no_escape=no_escape
    )
    if target is not None:
        check_save(target, options, remote_files(settings()), request.spec)
    context = connected()
    with bar(messages()) as progress:
        reading = progress.add_task("submitting", total=None)
        accepted = accept_batch(context, request, lambda rows: progress.advance(reading, rows))
        progress.update(reading, total=progress.tasks[0].completed)
        submitted = submit(context, accepted, progress.console)
    shows_labels = labels_are_shown(source, as_json=as_json)
    if target is None and not (wait and shows_labels):
        finish_submission(context, submitted, wait=wait, as_json=as_json)
        return
    say_warnings(submitted.warnings)
    document = follow_or_detach(context, submitted.id)
    lost = lost_reads(submitted.id)
    if target is None:
        show_labels(context, submitted.id, lost)
        exit_for(document)
    else:
        save(context, SaveRequest(submitted.id, target, options), lost)
        finish_wait(document, as_json=as_json, output=target)


def request_of(arguments: Mapping[str, Any]) -> ClassifyRequest:
    """What the arguments of `classify` ask for. Raises InvalidInput."""
    same = (
        *("text", "id_column", "mode", "deadline", "priority", "chats", "cache", "encoding", "delimiter", "quoting"),
        *("idempotency_key", "max_cost"),
    )
    return ClassifyRequest.of(
        arguments["source"],
        arguments["model"],
        thresholds=parse_thresholds(arguments["threshold"] or []),
        multi=arguments["multi"] or (),
        on_bad_row=arguments["on_bad_row"].value,
        metadata=parse_metadata(arguments["metadata"]),
        **{name: arguments[name] for name in same},
    )


def parse_thresholds(items: list[str]) -> dict[str, float]:
    """`0.7` → `{"*": 0.7}`, `intent=0.7` → `{"intent": 0.7}`. Raises InvalidInput."""
    thresholds: dict[str, float] = {}
    for item in items:
        target, _, number = item.rpartition("=")
        try:
            value = float(number)
        except ValueError as error:
            raise InvalidInput(f"--threshold {shown(item)} is not a NUMBER or TARGET=NUMBER") from error
        if not 0 <= value <= 1:
            raise InvalidInput(f"--threshold {shown(item)} is not between 0 and 1")
        thresholds[target or "*"] = value
    return thresholds
