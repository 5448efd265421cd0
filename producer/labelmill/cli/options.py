"""Arguments and options that several commands share, and the panels in which `--help` lists commands."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from labelmill.contracts.bounds import shown
from labelmill.contracts.errors import InvalidInput

MAIN, ANY_JOB, STORED, OPERATE = "From texts to labels", "Any job, by its id", "What there is", "Running it"

MOST_LISTED = 1_000_000

JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id, as its submission printed it.")]
ModelRef = Annotated[str, typer.Argument(metavar="REF", help="intents (the promoted version), intents@2, or ft:….")]
DatasetRef = Annotated[str, typer.Option("--dataset", metavar="NAME", help="A dataset: NAME or NAME@VERSION.")]
SplitName = Annotated[str, typer.Option("--split", metavar="SPLIT", help="train, validation or test.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow the job to its end; Ctrl-C detaches.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, the default where stdout is not a terminal.")
]
Scores = Annotated[
    str | None,
    typer.Option(
        metavar="none|top:K|all",
        help="Which scores to write in addition to a label and its own: none, those of the K best labels, all.",
        show_default="all; in CSV none, but for evaluations",
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COL",
        help="A column of the source file to add to the results. Repeatable; reads the file again.",
    ),
]
OutputDelimiter = Annotated[
    str | None, typer.Option(metavar="SIGN", help="CSV: what separates cells, such as ; or tab.", show_default=",")
]
Bom = Annotated[bool, typer.Option("--bom", help="CSV: begin with a byte order mark, by which Excel knows UTF-8.")]
NoEscape = Annotated[
    bool, typer.Option("--no-escape", help="CSV: leave cells that a spreadsheet may run as formulas unchanged.")
]
Encoding = Annotated[
    str | None,
    typer.Option("--encoding", metavar="NAME", help="Of CSV and JSONL, such as cp1252.", show_default="UTF-8"),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter", metavar="CHAR", help="Between the cells of CSV; tab is a word.", show_default="detected"
    ),
]


IdempotencyKey = Annotated[
    str | None,
    typer.Option("--idempotency-key", metavar="KEY", help="The same key and request is the same job, however often."),
]
MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", metavar="USD", help="Stop before the job may cost more.", show_default="no limit"),
]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="K=V", help="Noted with the job; `status --metadata K=V` lists. Repeatable."),
]


def parse_metadata(items: Sequence[str] | None) -> dict[str, str]:
    """`["team=search", …]` → `{"team": "search", …}`. Raises InvalidInput."""
    metadata: dict[str, str] = {}
    for item in items or ():
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise InvalidInput(f"--metadata {shown(item)} is not NAME=VALUE")
        if name in metadata:
            raise InvalidInput(f"--metadata names {shown(name)} twice")
        metadata[name] = value
    return metadata


class Quoting(StrEnum):
    """The meaning of quotes in CSV."""

    NONE = "none"
    STANDARD = "standard"


QuotingOption = Annotated[
    Quoting | None,
    typer.Option(
        "--quoting", help="none: quotes are letters. standard: quoted cells may hold line breaks, in TSV too."
    ),
]


class OnBadRow(StrEnum):
    """What to do with a row that cannot be read."""

    FAIL = "fail"
    SKIP = "skip"
