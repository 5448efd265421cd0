"""`labelmill`: gathers the commands, turns errors into one sentence and an exit code."""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points
from typing import Annotated

import typer

from labelmill import __version__
from labelmill.cli import classify, database, evaluate, jobs, prepare, train
from labelmill.cli.context import Flags, messages, remember_flags
from labelmill.contracts.errors import LabelmillError

COMMANDS = "labelmill.commands"  #: Entry points: worker and ops add their commands here.


def build_app() -> typer.Typer:
    """The Typer application with every installed command."""
    app = typer.Typer(
        name="labelmill",
        help="Classify text in bulk, reliably, with Mistral models.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_global_options)
    for group in (prepare, train, classify, evaluate, jobs, database):
        group.register(app)
    for point in sorted(entry_points(group=COMMANDS), key=lambda point: point.name):
        try:
            register = point.load()
        except ImportError:
            continue  # its extra is not installed
        register(app)
    return app


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - a Typer callback
    if wanted:
        typer.echo(f"labelmill {__version__}")
        raise typer.Exit


def _global_options(
    database_url: Annotated[str | None, typer.Option(help="SQLite or PostgreSQL URL.", show_default=False)] = None,
    broker_url: Annotated[str | None, typer.Option(help="Redis URL.", show_default=False)] = None,
    mistral_url: Annotated[str | None, typer.Option(help="Where Mistral answers.", show_default=False)] = None,
    data_dir: Annotated[
        str | None, typer.Option(help="Folder that producers and workers share.", show_default=False)
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    del version
    remember_flags(
        Flags(database_url=database_url, broker_url=broker_url, mistral_url=mistral_url, data_dir=data_dir)
    )  # fmt: skip


def run() -> None:
    """The console script. Never returns: exits with a documented code."""
    try:
        build_app()()
    except LabelmillError as error:
        messages().print(f"[bold red]error:[/] {_escaped(error.message)}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # the reader of our output has enough (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
