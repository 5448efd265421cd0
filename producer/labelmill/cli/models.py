"""`labelmill models`: the registry."""

from __future__ import annotations

from typing import Annotated

import typer

from labelmill.cli.context import connected, messages, print_json, say_warnings, tables, wants_json
from labelmill.cli.options import STORED, AsJson
from labelmill.cli.tables import print_details, print_rows
from labelmill.contracts.documents.models import ModelEntry
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import Notice
from labelmill.services.models import registry
from labelmill.services.models.registry import (
    AliasRequest,
    ChangedModel,
    ModelRequest,
    ModelsRequest,
    NoteRequest,
    RegisterRequest,
    RetireRequest,
    ThresholdsRequest,
)

Version = Annotated[str, typer.Argument(metavar="REF", help="A version: intents@2, or intents@ALIAS.")]
Model = Annotated[str, typer.Argument(metavar="REF", help="intents (the promoted version), intents@2, intents@ALIAS.")]
SUMMARY = "List models; promote, name, archive or delete versions."

HereOnly = Annotated[
    bool, typer.Option("--here-only", help="Leave the fine-tuned model at Mistral unchanged: its storage fee goes on.")
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
    entries = registry.list_models(connected(), ModelsRequest(archived=everything))
    if wants_json(as_json):
        print_json(entries)
        return
    headings = ("model", "answers to", "method", "targets", "measured", "state", "created (UTC)", "note")
    rows = []
    for entry in entries:
        targets = ", ".join(f"{target}: {count} labels" for target, count in entry["targets"].items())
        names = [entry["name"]] if entry["promoted"] else []
        names += [f"@{alias}" for alias in entry["aliases"]]
        rows.append(
            (
                entry["model"],
                ", ".join(names),
                entry["method"],
                targets,
                _measured(entry),
                _state(entry),
                entry["created_at"][:16].replace("T", " "),
                entry["note"] or "",
            )
        )
    print_rows(tables(), headings, rows, flowing=("targets", "measured", "state", "note"))
    say_warnings([Notice(said) for entry in entries for said in entry["warnings"]])


def _measured(model: ModelEntry) -> str:
    """`accuracy 0.823 on intents@1 test`; for a multi-label target micro F1, because few rows have all labels right."""
    if not (evaluated := model["evaluated"]):
        return ""
    figures = [
        f"micro F1 {metrics['micro_f1']:.3f}"
        if name in model["multi_label"] and metrics["micro_f1"] is not None
        else f"accuracy {metrics['accuracy']:.3f}"
        for name, metrics in evaluated["targets"].items()
    ]
    of_training = ", which it may have been trained on" if evaluated["split"] == "train" else ""
    return f"{', '.join(figures)} on {evaluated['dataset']} {evaluated['split']}{of_training}"


def _state(model: ModelEntry) -> str:
    words = [model["state"]]
    if model["remote_wish"]:
        words.append(f"{model['remote_wish']} at Mistral is pending")
    elif model["remote_state"]:
        words.append(f"{model['remote_state']} at Mistral")
    if model["remote_error"]:
        words.append(model["remote_error"])
    return "; ".join(words)


def show(ref: Model, as_json: AsJson = False) -> None:
    """Everything about a version: dataset, files, training, job at Mistral, evaluations, batches."""
    document = registry.show_model(connected(), ModelRequest(ref))
    if wants_json(as_json):
        print_json(document)
        return
    print_details(tables(), document)


def promote(ref: Version, as_json: AsJson = False) -> None:
    """Make a version the one that the model's bare name means; an archived one is restored."""
    _tell(registry.promote(connected(), ModelRequest(ref)), "is promoted", as_json=as_json)


def rollback(name: Annotated[str, typer.Argument(help="The model's bare name.")], as_json: AsJson = False) -> None:
    """Promote the version that was promoted before; again: the one before that."""
    _tell(registry.rollback(connected(), ModelRequest(name)), "is promoted again", as_json=as_json)


def alias(
    ref: Version,
    name: Annotated[
        str | None, typer.Argument(metavar="ALIAS", help="champion: NAME@champion means this version.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the alias that REF names.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a version a second name, or move that name to it."""
    if remove:
        registry.remove_alias(connected(), ModelRequest(ref))
        messages().print(f"the alias {ref} was removed")
        if wants_json(as_json):
            print_json({"alias": ref, "removed": True})
        return
    if name is None:
        raise InvalidInput("name the alias: labelmill models alias NAME@2 champion")
    _tell(registry.set_alias(connected(), AliasRequest(ref, name)), f"answers to @{name}", as_json=as_json)


def note(
    ref: Version,
    text: Annotated[str, typer.Argument(help="What to know about it; an empty text removes the note.")],
    as_json: AsJson = False,
) -> None:
    """Write a note on a version."""
    _tell(registry.set_note(connected(), NoteRequest(ref, text)), "has the note", as_json=as_json)


def threshold(
    ref: Model,
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="THRESHOLD…", help="0.6 for every target, TARGET=0.6, or TARGET.LABEL=0.6 (multi-label)."
        ),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all thresholds of the version.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set the thresholds of a version; without a threshold, show them.

    Under it a single-label target abstains, and a label of a multi-label one does not hold.
    """
    context = connected()
    if clear:
        thresholds = registry.clear_thresholds(context, ModelRequest(ref))
    elif values:
        thresholds = registry.set_thresholds(context, ThresholdsRequest(ref, values))
    else:
        thresholds = registry.thresholds(context, ModelRequest(ref))
    if wants_json(as_json):
        print_json(thresholds)
    else:
        print_details(tables(), thresholds)


def register_model(
    name: Annotated[str, typer.Argument(help="Its name in Labelmill.")],
    remote_id: Annotated[str, typer.Argument(metavar="ID", help="Its id at Mistral: ft:classifier:….")],
    multi: Annotated[list[str] | None, typer.Option(help="A multi-label target of it. Repeatable.")] = None,
    chats: Annotated[bool, typer.Option("--chats", help="It was trained on chats.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a classifier that was fine-tuned before a name; its labels are learnt from its first answer."""
    made = registry.register(connected(), RegisterRequest(name, remote_id, multi or (), chats))
    if wants_json(as_json):
        print_json(made)
    else:
        tables().print(f"{made['model']} is {made['remote_model']}", soft_wrap=True)


def archive(ref: Version, here_only: HereOnly = False, as_json: AsJson = False) -> None:
    """Archive a version: no new job can use it until it is promoted.

    A fine-tuned one is archived at Mistral too, which stops its storage fee.
    """
    request = RetireRequest(ref, at_mistral=not here_only)
    _tell(registry.archive(connected(), request), "is archived", as_json=as_json)


def delete(ref: Version, here_only: HereOnly = False, as_json: AsJson = False) -> None:
    """Delete a version permanently, at Mistral too; its predictions stay."""
    request = RetireRequest(ref, at_mistral=not here_only)
    _tell(registry.delete(connected(), request), "is deleted", as_json=as_json)


def _tell(changed: ChangedModel, done: str, *, as_json: bool) -> None:
    say_warnings(changed.warnings)
    document = changed.document
    pending = f"; a worker will {document['remote_wish']} it at Mistral" if document["remote_wish"] else ""
    messages().print(f"{document['model']} {done}{pending}")
    if wants_json(as_json):
        print_json(document)
