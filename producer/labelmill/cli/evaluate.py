"""`labelmill evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from labelmill.cli.context import connected, finish_submission


def register(app: typer.Typer) -> None:
    """Add `evaluate`."""
    app.command("evaluate")(evaluate)


def evaluate(
    ref: Annotated[str, typer.Argument(help="The model: intents, intents@2 or a Mistral id.")],
    dataset: Annotated[str, typer.Option(help="The dataset: NAME or NAME@VERSION.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Fit a temperature on the validation split and keep it with the version."),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow to the end; Ctrl-C detaches.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (the default here).")] = False,
) -> None:
    """Measure a model on a split of a dataset: accuracy, F1, calibration, cost; what each means: docs/evaluation.md."""
    del as_json
    client = connected()
    job = client.evaluate(ref, dataset, split, calibrate=calibrate)
    finish_submission(client, job.id, wait=wait)
