"""`labelmill models`: the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from sqlalchemy import select
from sqlalchemy.engine import Connection

from labelmill.cli.context import connected, messages, print_json, say_warnings, tables, wants_json
from labelmill.cli.options import STORED, AsJson
from labelmill.cli.tables import print_details, print_rows
from labelmill.contracts.errors import InvalidInput
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import ModelRow
from labelmill.core.storage.data_folder import shown_files
from labelmill.services import models as registry

Version = Annotated[str, typer.Argument(metavar="REF", help="A version: intents@2, or intents@ALIAS.")]
Model = Annotated[str, typer.Argument(metavar="REF", help="intents (the promoted version), intents@2, intents@ALIAS.")]
SUMMARY = "List models; promote, name, archive or delete versions."

HereOnly = Annotated[
    bool, typer.Option("--here-only", help="Leave the fine-tuned model at Mistral as it is: its storage fee goes on.")
]


def register(app: typer.Typer) -> None:
    """Add `models` and its commands."""
    models = typer.Typer(help=SUMMARY, invoke_without_command=True)
    models.callback()(list_models)
    models.command("show")(show)
    models.command("promote")(promote)
    models.command("rollback")(rollback)
    models.command("alias")(alias)
    models.command("note")(note)
    models.command("threshold")(threshold)
    models.command("register")(register_model)
    models.command("archive")(archive)
    models.command("delete")(delete)
    app.add_typer(models, name="models", rich_help_panel=STORED)


def list_models(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Archived versions too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List models: the callback of the group."""
    if context.invoked_subcommand:
        return
    with reading(connected().engine) as connection:
        found = registry.list_models(connection, everything=everything)
    if wants_json(as_json):
        print_json(found)
        return
    headings = ("model", "answers to", "method", "targets", "measured", "state", "created", "note")
    rows = []
    for one in found:
        targets = ", ".join(f"{target}: {count} labels" for target, count in one["targets"].items())
        names = [one["name"]] if one["promoted"] else []
        names += [f"@{alias}" for alias in one["aliases"]]
        rows.append(
            (
                one["model"],
                ", ".join(names),
                one["method"],
                targets,
                _measured(one),
                _state(one),
                one["created_at"][:16].replace("T", " "),
                one["note"] or "",
            )
        )
    print_rows(tables(), headings, rows, flowing=("targets", "measured", "state", "note"))


def _measured(one: dict[str, Any]) -> str:
    """`accuracy 0.823 on intents@1 test`; of a multi-label target micro F1: rows with all labels right are few."""
    if not (evaluated := one["evaluated"]):
        return ""
    figures = [
        f"micro F1 {found['micro_f1']:.3f}"
        if name in one["multi_label"] and found["micro_f1"] is not None
        else f"accuracy {found['accuracy']:.3f}"
        for name, found in evaluated["targets"].items()
    ]
    return f"{', '.join(figures)} on {evaluated['dataset']} {evaluated['split']}"


def _state(one: dict[str, Any]) -> str:
    words = [one["state"]]
    if one["remote_wish"]:
        words.append(f"{one['remote_wish']} at Mistral is owed")
    elif one["remote_state"]:
        words.append(f"{one['remote_state']} at Mistral")
    if one["remote_error"]:
        words.append(one["remote_error"])
    return "; ".join(words)


def show(ref: Model, as_json: AsJson = False) -> None:
    """Everything about a version: dataset, files, training, job at Mistral, evaluations, batches."""
    client = connected()
    with reading(client.engine) as connection:
        found = registry.lineage(connection, ref)
    if found["dataset"] and found["dataset"]["files"]:
        found["dataset"]["files"] = shown_files(client.settings.data_dir, found["dataset"]["files"])
    if wants_json(as_json):
        print_json(found)
        return
    print_details(tables(), found)


def promote(ref: Version, as_json: AsJson = False) -> None:
    """Let a version answer to the model's bare name; an archived one comes back."""
    _change(registry.promote, ref, "is promoted", as_json=as_json)


def rollback(name: Annotated[str, typer.Argument(help="The model's bare name.")], as_json: AsJson = False) -> None:
    """Promote the version that was promoted before; again: the one before that."""
    _change(registry.rollback, name, "is promoted again", as_json=as_json)


def alias(
    ref: Version,
    name: Annotated[
        str | None, typer.Argument(metavar="ALIAS", help="champion: NAME@champion means this version.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the alias that REF names.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a version a second name, or move that name to it."""
    if remove:
        with writing(connected().engine) as connection:
            registry.remove_alias(connection, ref)
        messages().print(f"{ref} means nothing any more")
        if wants_json(as_json):
            print_json({"alias": ref, "removed": True})
        return
    if name is None:
        raise InvalidInput("say the alias: labelmill models alias NAME@2 champion")
    _change(
        lambda connection, which: registry.set_alias(connection, which, name),
        ref,
        f"answers to @{name}",
        as_json=as_json,
    )


def note(
    ref: Version,
    text: Annotated[str, typer.Argument(help="What to know about it; an empty text removes the note.")],
    as_json: AsJson = False,
) -> None:
    """Write a note on a version."""
    _change(lambda connection, which: registry.set_note(connection, which, text), ref, "has the note", as_json=as_json)


def threshold(
    ref: Model,
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="THRESHOLD…", help="0.6 for every target, TARGET=0.6, or TARGET.LABEL=0.6 (multi-label)."
        ),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Forget all of the version's thresholds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set from which score on a version is believed; without a threshold, show them.

    Under it a single-label target abstains, and a label of a multi-label one does not hold.
    """
    client = connected()
    with writing(client.engine) as connection:
        if clear:
            row = registry.clear_thresholds(connection, ref)
        elif values:
            row = registry.set_thresholds(connection, ref, values)
        else:
            row = registry.resolve_model(connection, ref)
        document = {"model": registry.ref_of(row), "thresholds": row.thresholds or {}}
    if wants_json(as_json):
        print_json(document)
    else:
        print_details(tables(), document)


def register_model(
    name: Annotated[str, typer.Argument(help="The name it gets here.")],
    remote_id: Annotated[str, typer.Argument(metavar="ID", help="Its id at Mistral: ft:classifier:….")],
    multi: Annotated[list[str] | None, typer.Option(help="A multi-label target of it. Repeatable.")] = None,
    chats: Annotated[bool, typer.Option("--chats", help="It was trained on chats.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a classifier that was fine-tuned before a name; its labels are learnt from its first answer."""
    with writing(connected().engine) as connection:
        row = registry.register(connection, name, remote_id, multi=multi or (), chats=chats)
    if wants_json(as_json):
        print_json({"model": registry.ref_of(row), "remote_model": row.remote_model})
    else:
        tables().print(f"{registry.ref_of(row)} is {row.remote_model}", soft_wrap=True)


def archive(ref: Version, here_only: HereOnly = False, as_json: AsJson = False) -> None:
    """Put a version away: nothing new runs on it until it is promoted.

    A fine-tuned one is archived at Mistral too, which stops its storage fee.
    """
    _change(
        lambda connection, which: registry.archive(connection, which, at_mistral=not here_only),
        ref,
        "is archived",
        as_json=as_json,
    )


def delete(ref: Version, here_only: HereOnly = False, as_json: AsJson = False) -> None:
    """Remove a version for good, at Mistral too; what it predicted stays."""
    _change(
        lambda connection, which: registry.delete(connection, which, at_mistral=not here_only),
        ref,
        "is deleted",
        as_json=as_json,
    )


def _change(act: Callable[[Connection, str], ModelRow], ref: str, done: str, *, as_json: bool) -> None:
    client = connected()
    with writing(client.engine) as connection:
        row = act(connection, ref)
        columns = (ModelRow.state, ModelRow.promoted, ModelRow.note)
        now = connection.execute(select(*columns).where(ModelRow.no == row.no)).mappings().one()
    registry.send_wish(client.sender, row, client.warnings.append)
    say_warnings(client)
    owed = f"; a worker will {row.remote_wish} it at Mistral" if row.remote_wish else ""
    messages().print(f"{registry.ref_of(row)} {done}{owed}")
    if wants_json(as_json):
        print_json({"model": registry.ref_of(row), **now, "remote_wish": row.remote_wish})
