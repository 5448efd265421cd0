"""`labelmill`: gathers the commands, turns errors into one sentence and an exit code."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from importlib import import_module
from importlib.metadata import entry_points
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from labelmill import __version__
from labelmill.cli.context import Flags, messages, remember_flags, say, say_what_goes_on
from labelmill.cli.field_options import words_of
from labelmill.cli.streams import discard, prepare_streams
from labelmill.contracts.control_characters import visible
from labelmill.contracts.errors import LabelmillError
from labelmill.contracts.exit_codes import DETACHED, USAGE

COMMANDS = "labelmill.commands"  #: Entry points: worker and ops add their commands here.

#: Which module of this package has which commands, in the order of the help.
_MODULES = {
    "prepare": ["prepare", "datasets"],
    "train": ["train", "approve"],
    "models": ["models"],
    "classify": ["classify"],
    "evaluate": ["evaluate"],
    "compare": ["compare"],
    "jobs": ["status", "watch", "cancel", "retry"],
    "results": ["results"],
    "report": ["report"],
    "spend": ["spend"],
    "dead_letters": ["dead-letters"],
    "purge": ["purge"],
    "doctor": ["doctor"],
    "database": ["db"],
}

_Register = Callable[[typer.Typer], None]


class _Commands(TyperGroup):
    """Imports only the module of the command that runs; all modules for the help and for an unknown command."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands."""
        self.commands.clear()  # so that those there already come in their place
        for register in _registers(_MODULES):
            self._add(register)
        for register in _registers_of_other_packages():
            self._add(register)
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, or None."""
        if cmd_name not in self.commands:
            for register in _registers([module for module, names in _MODULES.items() if cmd_name in names]):
                self._add(register)
        if cmd_name not in self.commands:
            for register in _registers_of_other_packages():
                self._add(register)
        if cmd_name not in self.commands:
            self.list_commands(ctx)  # Typer suggests the most similar ones
        return super().get_command(ctx, cmd_name)

    def _add(self, register: _Register) -> None:
        group = typer.Typer()
        register(group)
        self.commands.update(typer.main.get_group(group).commands)


def _registers(modules: Iterable[str]) -> Iterator[_Register]:
    for module in modules:
        yield import_module(f"labelmill.cli.{module}").register


def _registers_of_other_packages() -> Iterator[_Register]:
    for point in sorted(entry_points(group=COMMANDS), key=lambda point: point.name):
        try:
            yield point.load()
        except ImportError:
            continue  # its extra is not installed


def build_app() -> typer.Typer:
    """The Typer application with every installed command."""
    app = typer.Typer(
        name="labelmill",
        cls=_Commands,
        help="Classify text in bulk, reliably, with Mistral models.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_global_options)
    return app


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - a Typer callback
    if wanted:
        typer.echo(f"labelmill {__version__}")
        raise typer.Exit


def _global_options(
    ctx: typer.Context,
    database_url: Annotated[str | None, typer.Option(help="SQLite or PostgreSQL URL.", show_default=False)] = None,
    broker_url: Annotated[str | None, typer.Option(help="Redis URL.", show_default=False)] = None,
    mistral_url: Annotated[str | None, typer.Option(help="Where Mistral answers.", show_default=False)] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(help="Folder that producers and workers share, or s3://BUCKET/PREFIX.", show_default=False),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version
    gc.freeze()  # what is imported stays, and is not looked through again
    gc.enable()
    flags = Flags(database_url=database_url, broker_url=broker_url, mistral_url=mistral_url, data_dir=data_dir)
    remember_flags(flags, ctx.with_resource(ExitStack()))


def run() -> NoReturn:
    """The console script. Exits with a documented code; every error is one sentence on stderr."""
    prepare_streams()
    gc.disable()  # imports make much and drop nothing: looking through it takes a tenth of a short command's time
    code = _outcome()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
    except OSError:
        discard(sys.stdout)
        code = code or 1
    gc.freeze()  # else Python looks through all objects for garbage before it ends
    sys.exit(code)


def _outcome() -> int:
    try:
        code = build_app()(prog_name="labelmill", standalone_mode=False)
        sys.stdout.flush()
        if code == DETACHED:  # Typer's word for a Ctrl-C too
            say_what_goes_on()
    except LabelmillError as error:
        say("error", "bold red", words_of(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        say_what_goes_on()
        return DETACHED
    except SystemExit as error:
        if isinstance(error.code, str):  # Python's own way to end with a sentence
            sys.stderr.write(f"{visible(error.code)}\n")
            return USAGE
        # the reader of the output has closed it (`| head`); Typer usually notices first
        discard(sys.stdout)
        return 0 if isinstance(error.__context__, BrokenPipeError) else error.code or 0
    except BrokenPipeError:
        discard(sys.stdout)
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
    say("error", "bold red", " ".join(error.format_message().replace("Value error, ", "").split()))
    if context is not None:
        messages().print(f"`{context.command_path} --help` shows what there is")
    return int(error.exit_code)


def _unforeseen(error: Exception) -> int:
    if os.environ.get("LABELMILL_DEBUG", "") not in ("", "0"):
        sys.stderr.write(visible(traceback.format_exc()))
    if isinstance(error, OSError) and error.strerror:
        discard(sys.stdout)  # a full disk would be met again when Python flushes at its end
        # an error without a file name concerns the command's own output
        say("error", "bold red", f"{error.filename or 'the output cannot be written'}: {error.strerror}")
        return 1
    first_line = next(iter(str(error).strip().splitlines()), "")
    what = f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
    say("error", "bold red", f"an unexpected error occurred ({what}); LABELMILL_DEBUG=1 shows where")
    return 1
