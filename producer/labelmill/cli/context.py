"""Shared by all commands: flags, the context of services, output streams, and how a submission ends."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from labelmill.cli.field_options import words_of
from labelmill.cli.progress import follow
from labelmill.cli.streams import write_json
from labelmill.cli.summaries import print_summary, summary_of, summary_of_submission
from labelmill.cli.terminal import PlainConsole
from labelmill.contracts.control_characters import visible
from labelmill.contracts.exit_codes import DETACHED, exit_code_of_job
from labelmill.core.settings import Settings, load_producer_settings
from labelmill.services.jobs.lost_reads import LostReads

if TYPE_CHECKING:
    from labelmill.contracts.documents.jobs import JobDocument
    from labelmill.contracts.field_names import Notice
    from labelmill.services.context import ServiceContext
    from labelmill.services.jobs.actions import Cancelled
    from labelmill.services.results.formats import Output
    from labelmill.services.submissions.accepted import Accepted, Submitted


@dataclass(frozen=True)
class Flags:
    """The options before the command; None: not set."""

    database_url: str | None = None
    broker_url: str | None = None
    mistral_url: str | None = None
    data_dir: str | None = None


_flags: ContextVar[Flags | None] = ContextVar("flags", default=None)
_at_the_end: ContextVar[ExitStack | None] = ContextVar("at_the_end", default=None)
_submitted: list[str] = []  #: By the command that runs, and not yet told of after a Ctrl-C.


def remember_flags(flags: Flags, at_the_end: ExitStack) -> None:
    """Store the options before the command for `settings`, and the context that the end of the command closes."""
    _flags.set(flags)
    _submitted.clear()
    _at_the_end.set(at_the_end)


def messages() -> Console:
    """The console for messages and progress: stderr, without formatting when it is not a terminal."""
    return PlainConsole(stderr=True, soft_wrap=True)


def tables() -> Console:
    """The console for tables and summaries: stdout. When it is not a terminal, commands print JSON instead."""
    return PlainConsole()


def say(word: str, style: str, message: str, console: Console | None = None) -> None:
    """One message on stderr: `word: message`. `console`: the one that currently shows a progress bar."""
    (console or messages()).print(Text.assemble((f"{word}:", style), " ", visible(message)))


def settings() -> Settings:
    """Settings with the flags of this command on top. Raises InvalidInput."""
    return load_producer_settings(**asdict(_flags.get() or Flags()))


def connected() -> ServiceContext:
    """A context on the configured database; the end of the command closes it. Raises DatabaseUnavailable,
    DatabaseOutdated."""
    from labelmill.services.context import open_context  # noqa: PLC0415 - SQLAlchemy: half a second, which the help spares

    context = open_context(settings())
    if (at_the_end := _at_the_end.get()) is not None:
        at_the_end.callback(context.close)
    return context


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    write_json(document)


def wants_json(as_json: bool) -> bool:  # noqa: FBT001 - the value of --json
    """Whether to print JSON: it was requested, or stdout is not a terminal."""
    return as_json or not sys.stdout.isatty()


def announce(job_id: str, console: Console | None = None) -> None:
    """Print the id of the submitted job on stderr, before anything else can fail."""
    _submitted.append(job_id)  # first: Ctrl-C may come while the line is written
    say("submitted", "green", job_id, console)


def say_what_goes_on() -> None:
    """After a Ctrl-C: what this command has submitted goes on without it."""
    if _submitted:
        say_detached(
            "".join(f"detached; the job goes on: labelmill watch {job_id}\n" for job_id in _submitted).rstrip()
        )


def say_detached(sentence: str) -> None:
    """After a Ctrl-C: that all jobs of this command go on without it."""
    _submitted.clear()
    messages().print(sentence)


def say_warnings(warnings: Iterable[Notice]) -> None:
    """Print warnings on stderr."""
    for warning in warnings:
        say("warning", "yellow", words_of(warning))


def submit(context: ServiceContext, accepted: Accepted, console: Console | None = None) -> Submitted:
    """Show the id of the accepted job, then send its messages, so that the id is known if sending fails."""
    from labelmill.services.submissions.accepted import start  # noqa: PLC0415 - as above

    announce(accepted.id, console)
    return start(context, accepted)


def finish_submission(
    context: ServiceContext, submitted: Submitted | Cancelled, *, wait: bool = False, as_json: bool
) -> None:
    """Print `id`, `kind` and `state`; with `wait`, follow the job to its end, print its final status and exit with the
    job's code. Ctrl-C while waiting detaches (130)."""
    say_warnings(submitted.warnings)
    if wait:
        finish_wait(follow_or_detach(context, submitted.id), as_json=as_json)
        return
    document = {"id": submitted.id, "kind": submitted.kind.value, "state": submitted.state}
    if wants_json(as_json):
        print_json(document)
    else:
        print_summary(tables(), summary_of_submission(document))


def finish_wait(document: Mapping[str, Any], *, as_json: bool, output: Output | None = None) -> None:
    """Print the status of a job after a wait, and exit with its code. `output`: where its rows were written."""
    for warning in (document.get("report") or {}).get("warnings", ()):
        say("warning", "yellow", warning)
    shown_to_people = not wants_json(as_json)
    if shown_to_people:
        print_summary(tables(), summary_of(document, output))
    else:
        print_json(document)
    exit_for(document, error_was_shown=shown_to_people)


def lost_reads(job_id: str) -> LostReads:
    """Retries of a wait during an outage of the database; messages go to stderr."""
    return LostReads(job_id, lambda what: say("waiting", "yellow", what))


def follow_or_detach(context: ServiceContext, job_id: str) -> JobDocument:
    """Show progress until the job ends. Ctrl-C leaves the job running and exits with 130."""
    try:
        return follow(context, job_id, messages(), lost_reads)
    except KeyboardInterrupt:
        say_detached(f"detached; the job goes on: labelmill watch {job_id}")
        raise typer.Exit(DETACHED) from None


def exit_for(document: Mapping[str, Any], *, error_was_shown: bool = False) -> None:
    """Exit with the exit code of an ended job. `error_was_shown`: it is not shown again."""
    code = exit_code_of_job(document)
    if code:
        if document.get("error") and not error_was_shown:
            messages().print(f"{document['id']} {document['state']}: {document['error']}")
        raise typer.Exit(code)
