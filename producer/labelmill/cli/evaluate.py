"""`labelmill evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from labelmill.cli.context import connected, finish_submission, submit
from labelmill.cli.options import (
    MAIN,
    AsJson,
    DatasetRef,
    IdempotencyKey,
    MaxCost,
    Metadata,
    ModelRef,
    SplitName,
    Wait,
    parse_metadata,
)
from labelmill.services.evaluations import EvaluateRequest, accept_evaluation


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
    mode: Annotated[str, typer.Option(help="realtime, or batch (half the price).")] = "realtime",
    idempotency_key: IdempotencyKey = None,
    metadata: Metadata = None,
    max_cost: MaxCost = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model on a split of a dataset.

    Accuracy, F1, calibration, time and cost; docs/evaluation.md says what each means.
    """
    request = EvaluateRequest(ref, dataset, split, calibrate, mode, idempotency_key, parse_metadata(metadata), max_cost)
    context = connected()
    submitted = submit(context, accept_evaluation(context, request))
    finish_submission(context, submitted, wait=wait, as_json=as_json)
