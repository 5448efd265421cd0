"""`labelmill train`, `labelmill approve`, `labelmill models`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from sqlalchemy.engine import Connection

from labelmill import registry
from labelmill.cli.context import connected, finish_submission, messages, print_json, tables
from labelmill.contracts.database import reading, writing
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.specs import BASE_MODELS
from labelmill.contracts.tables import ModelRow
from labelmill.train_submission import DEFAULT_METHOD, approve, submit_training

FACTORY, PROMPT = "For --method factory", "For --method prompt"
Reference = Annotated[str, typer.Argument(metavar="REF", help="A version such as intents@2.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]


def register(app: typer.Typer) -> None:
    """Add `train`, `approve` and `models`."""
    app.command("train")(train)
    app.command("approve")(approve_training)
    models = typer.Typer(help="List models; promote, archive or delete a version.", invoke_without_command=True)
    models.callback()(list_models)
    models.command("promote")(promote)
    models.command("register")(register_model)
    models.command("archive")(archive)
    models.command("delete")(delete)
    app.add_typer(models, name="models")


def train(
    name: Annotated[str, typer.Argument(help="The model's name; the same name again makes a new version.")],
    dataset: Annotated[str, typer.Option(metavar="NAME", help="A dataset, NAME or NAME@VERSION.")],
    method: Annotated[
        str,
        typer.Option(
            help="embedding: vectors by Mistral and a linear head. factory: fine-tuning at Mistral. "
            "prompt: a chat model, nothing is trained."
        ),
    ] = DEFAULT_METHOD,
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
    max_cost: Annotated[
        float | None, typer.Option(help="Start by itself only up to this cost, in the currency of the estimate.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Start whatever it costs, unless --max-cost is given.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job to its end.")] = False,
) -> None:
    """Train a model version on a dataset."""
    client = connected()
    job_id = submit_training(
        client.engine, client.sender, name=name, dataset=dataset, method=method, max_cost=max_cost, yes=yes,
        warn=client.warnings.append, base_model=model, steps=steps, learning_rate=learning_rate, suffix=suffix,
        target_weights=parse_weights(target_weight or []), wandb_project=wandb_project,
        descriptions=read_descriptions(describe) | parse_pairs("--label-description", label_description or []),
        shots=shots, shot_selection=shot_selection,
    )  # fmt: skip
    finish_submission(client, job_id, wait=wait)


def parse_pairs(option: str, given: list[str]) -> dict[str, str]:
    """`["a=1", …]` → `{"a": "1", …}`. Raises InvalidInput."""
    pairs = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not (name and equals and value.strip()):
            raise InvalidInput(f"{option} {item!r} is no NAME=VALUE")
        pairs[name] = value.strip()
    return pairs


def parse_weights(given: list[str]) -> dict[str, float]:
    """`["intent=2", …]` → `{"intent": 2.0, …}`. Raises InvalidInput."""
    weights = {}
    for name, value in parse_pairs("--target-weight", given).items():
        try:
            weights[name] = float(value)
        except ValueError as error:
            raise InvalidInput(f"--target-weight {name}={value}: {value!r} is no number") from error
        if not (math.isfinite(weights[name]) and weights[name] > 0):
            raise InvalidInput(f"--target-weight {name}={value} is not above 0")
    return weights


def read_descriptions(file: Path | None) -> dict[str, str]:
    """What a `--describe` file says. Raises InvalidInput."""
    if file is None:
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"--describe {file}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"--describe {file} is no JSON: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(text, str) and text.strip() for text in found.values()):
        raise InvalidInput(f'--describe {file} is no JSON object of labels and texts: {{"label": "what it means"}}')
    return found


def approve_training(
    training_id: Annotated[str, typer.Argument(metavar="ID", help="A training that waits for approval.")],
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job to its end.")] = False,
) -> None:
    """Let a training that waits for approval start spending."""
    client = connected()
    approve(client.engine, client.sender, training_id, warn=client.warnings.append)
    finish_submission(client, training_id, wait=wait)


def list_models(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Archived versions too.")] = False,
    as_json: Json = False,
) -> None:
    """List models; promote, archive or delete a version."""
    if context.invoked_subcommand:
        return
    with reading(connected().engine) as connection:
        found = registry.list_models(connection, everything=everything)
    if as_json:
        print_json(found)
        return
    table = Table(box=None)
    for heading in ("model", "promoted", "state", "method", "targets", "remote model", "created"):
        table.add_column(heading)
    for one in found:
        targets = ", ".join(f"{target}: {count}" for target, count in one["targets"].items())
        table.add_row(
            one["model"], "yes" if one["promoted"] else "", one["state"], one["method"], targets,
            one["remote_model"] or "", one["created_at"][:16].replace("T", " "),
        )  # fmt: skip
    tables().print(table)


def register_model(
    name: Annotated[str, typer.Argument(help="The name it gets here.")],
    remote_id: Annotated[str, typer.Argument(metavar="ID", help="Its id at Mistral: ft:classifier:….")],
    multi: Annotated[list[str] | None, typer.Option(help="A multi-label target of it. Repeatable.")] = None,
    chats: Annotated[bool, typer.Option("--chats", help="It was trained on chats.")] = False,
) -> None:
    """Give a classifier that was fine-tuned before a name; its labels are learnt from its first answer."""
    with writing(connected().engine) as connection:
        row = registry.register(connection, name, remote_id, multi=multi or (), chats=chats)
    print_json({"model": f"{row.name}@{row.version}", "remote_model": row.remote_model})


def promote(ref: Reference) -> None:
    """Let a version answer to the model's bare name; an archived one comes back."""
    _change(registry.promote, ref, "is promoted")


def archive(ref: Reference) -> None:
    """Put a version away: nothing new runs on it until it is promoted."""
    _change(registry.archive, ref, "is archived")


def delete(ref: Reference) -> None:
    """Remove a version for good; what it predicted stays."""
    _change(registry.delete, ref, "is deleted")


def _change(act: Callable[[Connection, str], ModelRow], ref: str, done: str) -> None:
    with writing(connected().engine) as connection:
        act(connection, ref)
    messages().print(f"{ref} {done}")
