"""What every command shares: flags, the client, where output goes, and the way a submission ends."""

from __future__ import annotations

from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from labelmill.cli.progress import follow
from labelmill.cli.streams import write_json
from labelmill.cli.terminal import PlainConsole
from labelmill.contracts.control_characters import visible
from labelmill.contracts.settings import Settings, load_producer_settings

if TYPE_CHECKING:
    from labelmill.client import Client


@dataclass(frozen=True)
class Flags:
    """The options before the command; None: not given."""

    database_url: str | None = None
    broker_url: str | None = None
    mistral_url: str | None = None
    data_dir: str | None = None


_flags: ContextVar[Flags | None] = ContextVar("flags", default=None)
_at_the_end: ContextVar[ExitStack | None] = ContextVar("at_the_end", default=None)


def remember_flags(flags: Flags, at_the_end: ExitStack) -> None:
    """Keep the options before the command for `settings`, and what is closed when the command ends for `connected`."""
    _flags.set(flags)
    _at_the_end.set(at_the_end)


def messages() -> Console:
    """Where messages and progress go: stderr, plain when it is no terminal."""
    return PlainConsole(stderr=True, soft_wrap=True)


def tables() -> Console:
    """Where tables go: stdout, as it is, and wide enough for whole ids when it is no terminal."""
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=240)


def say(word: str, style: str, message: str) -> None:
    """One message on stderr: `word: message`."""
    messages().print(Text.assemble((f"{word}:", style), " ", visible(message)))


def settings() -> Settings:
    """Settings with the flags of this command on top. Raises InvalidInput."""
    return load_producer_settings(**asdict(_flags.get() or Flags()))


def connected() -> Client:
    """A client on the configured database; the end of the command closes it. Raises DatabaseUnavailable,
    DatabaseOutdated."""
    from labelmill.client import Client  # noqa: PLC0415 - with SQLAlchemy half a second, which the help spares

    client = Client(settings())
    if (at_the_end := _at_the_end.get()) is not None:
        at_the_end.callback(client.close)
    return client


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    write_json(document)


def say_warnings(client: Client) -> None:
    """What did not stop a submission but should be known."""
    for warning in client.warnings:
        say("warning", "yellow", warning)


def finish_submission(client: Client, job_id: str, *, wait: bool) -> None:
    """Print `{"id", "kind", "state"}`; with `wait`, follow the job to its end, print its status document instead and
    exit with the job's code. Ctrl-C while waiting detaches (130)."""
    say_warnings(client)
    document = client.status(job_id)
    if not wait:
        print_json({key: document[key] for key in ("id", "kind", "state")})
        return
    document = follow_or_detach(client, job_id)
    for warning in (document.get("report") or {}).get("warnings", ()):
        say("warning", "yellow", warning)
    print_json(document)
    exit_for(document)


def follow_or_detach(client: Client, job_id: str) -> dict[str, Any]:
    """Show progress until the job ends. Ctrl-C leaves the job running and exits with 130."""
    try:
        return follow(client, job_id, messages())
    except KeyboardInterrupt:
        messages().print(f"detached; the job goes on: labelmill watch {job_id}")
        raise typer.Exit(130) from None


def exit_for(document: dict[str, Any]) -> None:
    """Leave with the exit code that an ended job stands for."""
    code = exit_code_of(document)
    if code:
        if document.get("error"):
            messages().print(f"{document['id']} {document['state']}: {document['error']}")
        raise typer.Exit(code)


def exit_code_of(document: dict[str, Any]) -> int:
    """0 done · 1 failed · 3 failed rows · 4 budget or approval · 5 credentials · 6 cancelled."""
    state = document["state"]
    if state == "failed":
        return 5 if document.get("error_code") == "credentials_refused" else 1
    if state == "completed" and document.get("rows", {}).get("failed"):
        return 3
    return {"awaiting_approval": 4, "paused": 4, "cancelled": 6}.get(state, 0)
