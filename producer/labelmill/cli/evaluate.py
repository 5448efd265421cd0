"""`labelmill evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from labelmill.cli.context import announce, connected, finish_submission
from labelmill.cli.options import MAIN, AsJson, DatasetRef, ModelRef, SplitName, Wait


def register(app: typer.Typer) -> None:
    """Add `evaluate`."""
    example = "Example: labelmill evaluate intents --dataset intents --wait"
    app.command("evaluate", rich_help_panel=MAIN, epilog=example)(evaluate)


def evaluate(
    ref: ModelRef,
    dataset: DatasetRef,
    split: SplitName = "test",
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Fit a temperature on the validation split and keep it with the version."),
    ] = False,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model on a split of a dataset.

    Accuracy, F1, calibration, time and cost; docs/evaluation.md says what each means.
    """
    client = connected()
    job = client.evaluate(ref, dataset, split, calibrate=calibrate, announce=announce)
    finish_submission(client, job.id, wait=wait, as_json=as_json)
