"""`labelmill train`, `labelmill approve`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from labelmill.cli.context import connected, finish_submission, submit
from labelmill.cli.options import MAIN, AsJson, DatasetRef, IdempotencyKey, Metadata, Wait, parse_metadata
from labelmill.contracts.bounds import shown
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.specs import BASE_MODELS, Aim
from labelmill.services.jobs.requests import JobRequest
from labelmill.services.trainings import DEFAULT_METHOD, TrainRequest, accept_training, approve

FACTORY, PROMPT = "For --method factory", "For --method prompt"
THRESHOLDS = "Thresholds"


def register(app: typer.Typer) -> None:
    """Add `train` and `approve`."""
    example = "Example: labelmill train intents --dataset intents --max-cost 0.05 --wait"
    app.command("train", rich_help_panel=MAIN, epilog=example)(train)
    app.command("approve", rich_help_panel=MAIN)(approve_training)


def train(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The model's name; the same name again makes a new version.")
    ],
    dataset: DatasetRef,
    method: Annotated[
        str,
        typer.Option(
            help="embedding: vectors by Mistral and a linear head. factory: fine-tuning at Mistral. "
            "prompt: a chat model, nothing is trained."
        ),
    ] = DEFAULT_METHOD,
    mode: Annotated[
        str | None,
        typer.Option(help="Of its requests: realtime, or batch (half the price).", show_default="realtime"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Mistral's model to use.", show_default=", ".join(BASE_MODELS.values()))
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Training steps.", show_default="Mistral's choice", rich_help_panel=FACTORY)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate.", show_default="Mistral's choice", rich_help_panel=FACTORY)
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option(help="Part of the model's id at Mistral.", show_default="the name", rich_help_panel=FACTORY),
    ] = None,
    target_weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET=WEIGHT", help="A target's share of the loss. Repeatable.", rich_help_panel=FACTORY
        ),
    ] = None,
    wandb_project: Annotated[
        str | None,
        typer.Option(
            help="Report to this Weights & Biases project (the worker has WANDB_API_KEY).", rich_help_panel=FACTORY
        ),
    ] = None,
    label_description: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=TEXT",
            help="What a label means; TARGET.LABEL where several targets have it. Repeatable.",
            rich_help_panel=PROMPT,
        ),
    ] = None,
    describe: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='A JSON file of them: {"label": "what it means"}.', rich_help_panel=PROMPT),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(help="Examples of each label to show.", show_default="0", rich_help_panel=PROMPT)
    ] = None,
    shot_selection: Annotated[
        str | None,
        typer.Option(
            help="balanced: the same for every text. nearest: those most like the text.",
            show_default="balanced",
            rich_help_panel=PROMPT,
        ),
    ] = None,
    texts_per_prompt: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Texts in one request of the chat model: fewer tokens a text, and perhaps less accuracy. auto: as "
            "many as cost no more than a point of accuracy on validation.",
            show_default="1",
            rich_help_panel=PROMPT,
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Labels of each target in a prompt: those nearest to its text, by vectors.",
            show_default="all",
            rich_help_panel=PROMPT,
        ),
    ] = None,
    optimize: Annotated[
        Aim | None,
        typer.Option(
            help="What thresholds of multi-label targets are tuned for. micro: all decisions. macro: every label "
            "alike. precision: fewer labels, right more often.",
            show_default="micro",
            rich_help_panel=THRESHOLDS,
        ),
    ] = None,
    target_precision: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHARE",
            help="Certify, on the validation split, a threshold from which on this share of answers is right; rows "
            "under it abstain. 0.95 for every target, TARGET=0.95, or TARGET.LABEL=0.95. Repeatable.",
            rich_help_panel=THRESHOLDS,
        ),
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="Start by itself only up to this cost, in the currency of the estimate.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Start whatever it costs, unless --max-cost is given.")] = False,
    idempotency_key: IdempotencyKey = None,
    metadata: Metadata = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Train a model version on a dataset."""
    request = request_of(locals())  # first: the arguments are all that is there
    context = connected()
    submitted = submit(context, accept_training(context, request))
    finish_submission(context, submitted, wait=wait, as_json=as_json)


def request_of(arguments: Mapping[str, Any]) -> TrainRequest:
    """What the arguments of `train` ask for. Raises InvalidInput."""
    same = (
        *("mode", "max_cost", "yes", "steps", "learning_rate", "suffix", "wandb_project"),
        *("shots", "shot_selection", "candidates", "optimize", "idempotency_key"),
    )
    return TrainRequest.of(
        arguments["name"],
        arguments["dataset"],
        method=arguments["method"],
        base_model=arguments["model"],
        target_weights=parse_weights(arguments["target_weight"] or []),
        descriptions=read_descriptions(arguments["describe"])
        | parse_pairs("--label-description", arguments["label_description"] or []),
        texts_per_prompt=parse_count(arguments["texts_per_prompt"]),
        target_precision=parse_precisions(arguments["target_precision"] or []),
        metadata=parse_metadata(arguments["metadata"]),
        **{name: arguments[name] for name in same},
    )


def parse_pairs(option: str, items: list[str]) -> dict[str, str]:
    """`["a=1", …]` → `{"a": "1", …}`. Raises InvalidInput."""
    pairs = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (name and equals and value.strip()):
            raise InvalidInput(f"{option} {shown(item)} is not NAME=VALUE")
        pairs[name] = value.strip()
    return pairs


def parse_weights(items: list[str]) -> dict[str, float]:
    """`["intent=2", …]` → `{"intent": 2.0, …}`. Raises InvalidInput."""
    weights = {}
    for name, value in parse_pairs("--target-weight", items).items():
        try:
            weights[name] = float(value)
        except ValueError as error:
            raise InvalidInput(f"--target-weight {name}={value}: {value!r} is not a number") from error
        if not (math.isfinite(weights[name]) and weights[name] > 0):
            raise InvalidInput(f"--target-weight {name}={value} is not above 0")
    return weights


def parse_count(given: str | None) -> int | str | None:
    """`"8"` → 8; other words as they are, for the specification to judge."""
    return int(given) if given is not None and given.isascii() and given.isdigit() else given


def parse_precisions(items: list[str]) -> dict[str, float]:
    """`["0.9", "intent.refund=0.99"]` → `{"*": 0.9, "intent.refund": 0.99}`. Raises InvalidInput."""
    precisions: dict[str, float] = {}
    for item in items:
        name, _, number = item.rpartition("=")
        try:
            share = float(number)
        except ValueError as error:
            raise InvalidInput(
                f"--target-precision {shown(item)} is not a NUMBER, TARGET=NUMBER or TARGET.LABEL=NUMBER"
            ) from error
        if not 0 < share < 1:
            raise InvalidInput(f"--target-precision {shown(item)} is not between 0 and 1: 0.95 is 95 %")
        precisions[name or "*"] = share
    return precisions


def read_descriptions(file: Path | None) -> dict[str, str]:
    """The descriptions in a `--describe` file. Raises InvalidInput."""
    if file is None:
        return {}
    try:
        descriptions = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"--describe {file}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"--describe {file} is not valid JSON: {error}") from error
    if not isinstance(descriptions, dict) or not all(
        isinstance(text, str) and text.strip() for text in descriptions.values()
    ):
        raise InvalidInput(f'--describe {file} is no JSON object of labels and texts: {{"label": "what it means"}}')
    return descriptions


def approve_training(
    training_id: Annotated[str, typer.Argument(metavar="ID", help="A training that waits for approval.")],
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Approve the cost of a training that waits for approval."""
    context = connected()
    finish_submission(context, approve(context, JobRequest(training_id)), wait=wait, as_json=as_json)
