"""`labelmill`: gathers the commands, turns errors into one sentence and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import entry_points
from typing import Annotated, Any, NoReturn

import typer

from labelmill import __version__
from labelmill.cli import (
    classify,
    compare,
    database,
    dead_letters,
    doctor,
    evaluate,
    jobs,
    models,
    prepare,
    report,
    train,
)
from labelmill.cli.context import Flags, messages, remember_flags, say
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
    for group in (prepare, train, models, classify, evaluate, compare, jobs, report, dead_letters, doctor, database):
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
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version
    remember_flags(
        Flags(database_url=database_url, broker_url=broker_url, mistral_url=mistral_url, data_dir=data_dir)
    )  # fmt: skip


def run() -> NoReturn:
    """The console script. Exits with a documented code; whatever goes wrong is one sentence on stderr."""
    code = _outcome()
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()
        code = code or 1
    sys.exit(code)


def _outcome() -> int:
    try:
        code = build_app()(prog_name="labelmill", standalone_mode=False)
        sys.stdout.flush()
    except LabelmillError as error:
        say("error", "bold red", error.message)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except SystemExit as error:
        # the reader of our output has enough (`| head`): Typer notices first
        _discard_output()
        return 0 if isinstance(error.__context__, BrokenPipeError) else int(error.code or 0)
    except BrokenPipeError:
        _discard_output()
        return 0
    except Exception as error:  # noqa: BLE001 - the boundary: no traceback reaches a user
        return _usage(error) if callable(getattr(error, "format_message", None)) else _unforeseen(error)
    return code if isinstance(code, int) else 0


def _usage(error: Any) -> int:
    """Arguments that Typer refused. Its errors are Click's in some versions and its own in others."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
        sys.stderr.write(context.get_help() + "\n")
        return 2
    say("error", "bold red", " ".join(error.format_message().split()))
    if context is not None:
        messages().print(f"`{context.command_path} --help` shows what there is")
    return int(error.exit_code)


def _unforeseen(error: Exception) -> int:
    if os.environ.get("LABELMILL_DEBUG", "") not in ("", "0"):
        traceback.print_exc()
    if isinstance(error, OSError) and error.strerror:
        _discard_output()  # a full disk would be met again when Python flushes at its end
        say("error", "bold red", f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
        return 1
    first_line = next(iter(str(error).strip().splitlines()), "")
    what = f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
    say("error", "bold red", f"something unforeseen went wrong ({what}); LABELMILL_DEBUG=1 shows where")
    return 1


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
