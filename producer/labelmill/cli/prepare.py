"""`labelmill prepare`, `labelmill datasets`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from labelmill.cli.context import connected, finish_submission, print_json, submit, tables, wants_json
from labelmill.cli.options import (
    MAIN,
    MOST_LISTED,
    STORED,
    AsJson,
    Delimiter,
    Encoding,
    IdempotencyKey,
    Metadata,
    OnBadRow,
    QuotingOption,
    Wait,
    parse_metadata,
)
from labelmill.cli.tables import print_rows, short_time
from labelmill.services.datasets import DatasetsRequest, PrepareRequest, accept_preparation, list_datasets


class RowFormat(StrEnum):
    """The layout of a source's rows."""

    COLUMNS = "columns"
    FACTORY = "factory"


def register(app: typer.Typer) -> None:
    """Add `prepare` and `datasets`."""
    example = "Example: labelmill prepare intents rows.csv --text body --target intent=label --wait"
    app.command("prepare", rich_help_panel=MAIN, epilog=example)(prepare)
    app.command("datasets", rich_help_panel=STORED)(datasets)


def prepare(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The dataset's name; the same name again makes a new version.")
    ],
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A .jsonl, .csv or .parquet file (also .gz), a quoted glob, s3://…, or hf:REPO, hf:REPO/CONFIG.",
        ),
    ],
    text: Annotated[str, typer.Option(metavar="COL", help="Column of the texts.")] = "text",
    target: Annotated[
        list[str] | None, typer.Option(metavar="NAME=COL[:multi]", help="A target and its column. Repeatable.")
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option(help="The separator of labels in a cell of a multi-label column.", show_default="| or ,"),
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(metavar="COL=VALUE", help="Keep rows with this value. Repeatable.")
    ] = None,
    min_per_label: Annotated[int | None, typer.Option(help="Leave out labels with fewer rows.")] = None,
    max_per_label: Annotated[int | None, typer.Option(help="Keep at most this many rows of each label.")] = None,
    split: Annotated[
        str, typer.Option(metavar="A/B/C", help="Parts of train, validation and test; a part may be 0.")
    ] = "80/10/10",
    seed: Annotated[int, typer.Option(help="The same seed draws the same rows.")] = 42,
    dedupe: Annotated[bool, typer.Option("--dedupe", help="Keep the first of rows with the same text.")] = False,
    on_bad_row: Annotated[
        OnBadRow, typer.Option(help="Whether rows that cannot be read fail the job or are left out and counted.")
    ] = OnBadRow.FAIL,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    quoting: QuotingOption = None,
    row_format: Annotated[
        RowFormat, typer.Option("--format", help='factory: rows are {"text", "labels"} already.')
    ] = RowFormat.COLUMNS,
    idempotency_key: IdempotencyKey = None,
    metadata: Metadata = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Make a dataset: labelled rows in, train, validation and test files out."""
    request = PrepareRequest.of(
        name,
        source,
        targets=target or (),
        where=where or (),
        split=split,
        text=text,
        min_per_label=min_per_label,
        max_per_label=max_per_label,
        seed=seed,
        dedupe=dedupe,
        encoding=encoding,
        delimiter=delimiter,
        quoting=quoting,
        separator=separator,
        on_bad_row=on_bad_row.value,
        format=row_format.value,
        idempotency_key=idempotency_key,
        metadata=parse_metadata(metadata),
    )
    context = connected()
    submitted = submit(context, accept_preparation(context, request))
    finish_submission(context, submitted, wait=wait, as_json=as_json)


def datasets(
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option(min=1, max=MOST_LISTED, help="How many to list.")] = 100,
) -> None:
    """List datasets, newest first."""
    listed = list_datasets(connected(), DatasetsRequest(limit))
    if wants_json(as_json):
        print_json(listed)
        return
    headings = ("dataset", "id", "state", "train", "validation", "test", "labels", "created (UTC)")
    rows = []
    for dataset in listed:
        splits = dataset["splits"] or {}
        labels = ", ".join(f"{target}: {count}" for target, count in dataset["label_counts"].items())
        rows.append(
            (
                f"{dataset['name']}@{dataset['version']}" if dataset["version"] else dataset["name"],
                dataset["id"],
                f"{dataset['state']} (same as {dataset['repeats']})" if dataset["repeats"] else dataset["state"],
                *(f"{splits[split]:,}" if split in splits else "" for split in ("train", "validation", "test")),
                labels,
                short_time(dataset["created_at"])[:16],
            )
        )
    print_rows(tables(), headings, rows, flowing=("labels",))
