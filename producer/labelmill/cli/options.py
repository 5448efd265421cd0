"""Arguments and options that several commands share, and the panels in which `--help` lists commands."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

MAIN, ANY_JOB, STORED, OPERATE = "From texts to labels", "Any job, by its id", "What there is", "Running it"

MOST_LISTED = 1_000_000

JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id, as its submission printed it.")]
ModelRef = Annotated[str, typer.Argument(metavar="REF", help="intents (the promoted version), intents@2, or ft:….")]
DatasetRef = Annotated[str, typer.Option("--dataset", metavar="NAME", help="A dataset: NAME or NAME@VERSION.")]
SplitName = Annotated[str, typer.Option("--split", metavar="SPLIT", help="train, validation or test.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow the job to its end; Ctrl-C detaches.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AlwaysJson = Annotated[bool, typer.Option("--json", help="Print one JSON document (the default here).")]


class OnBadRow(StrEnum):
    """What becomes of a row that cannot be read."""

    FAIL = "fail"
    SKIP = "skip"
