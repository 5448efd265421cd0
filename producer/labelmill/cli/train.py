"""`labelmill train`, `labelmill approve`, `labelmill models`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from rich.table import Table
from sqlalchemy.engine import Connection

from labelmill import registry
from labelmill.cli.context import connected, finish_submission, messages, print_json, tables
from labelmill.contracts.database import reading, writing
from labelmill.contracts.tables import ModelRow
from labelmill.train_submission import approve, submit_training

Reference = Annotated[str, typer.Argument(metavar="REF", help="A version such as intents@2.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]


def register(app: typer.Typer) -> None:
    """Add `train`, `approve` and `models`."""
    app.command("train")(train)
    app.command("approve")(approve_training)
    models = typer.Typer(help="List models; promote, archive or delete a version.", invoke_without_command=True)
    models.callback()(list_models)
    models.command("promote")(promote)
    models.command("archive")(archive)
    models.command("delete")(delete)
    app.add_typer(models, name="models")


def train(
    name: Annotated[str, typer.Argument(help="The model's name; the same name again makes a new version.")],
    dataset: Annotated[str, typer.Option(metavar="NAME", help="A dataset, NAME or NAME@VERSION.")],
    method: Annotated[
        str | None, typer.Option(help="How to train: factory (fine-tuning at Mistral).", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Mistral's model to start from.", show_default="ministral-3b-latest")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.", show_default="Mistral's choice")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate.", show_default="Mistral's choice")] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="Start by itself only up to this cost, in Mistral's currency.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Start whatever it costs, unless --max-cost is given.")] = False,
    wandb_project: Annotated[
        str | None, typer.Option(help="Report to this Weights & Biases project (the worker has WANDB_API_KEY).")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job to its end.")] = False,
) -> None:
    """Train a model version on a dataset."""
    client = connected()
    job_id = submit_training(
        client.engine, client.sender, name=name, dataset=dataset, method=method, base_model=model, steps=steps,
        learning_rate=learning_rate, max_cost=max_cost, yes=yes, wandb_project=wandb_project,
        warn=client.warnings.append,
    )  # fmt: skip
    finish_submission(client, job_id, wait=wait)


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
