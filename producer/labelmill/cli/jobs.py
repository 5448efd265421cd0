"""`labelmill status`, `watch`, `cancel`, `retry`: any job, by id."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from labelmill.cli.context import connected, exit_for, finish_submission, follow_or_detach, print_json, tables
from labelmill.cli.options import ANY_JOB, MOST_LISTED, AsJson, JobId, Wait
from labelmill.cli.tables import moment, print_details, print_rows


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (status, watch, cancel, retry):
        app.command(command.__name__, rich_help_panel=ANY_JOB)(command)


def status(
    job_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="A job's id; without one, the latest jobs.")
    ] = None,
    limit: Annotated[int, typer.Option(help="How many jobs to list.", min=1, max=MOST_LISTED)] = 20,
    as_json: AsJson = False,
) -> None:
    """Show a job, or the latest jobs.

    Exits with 0 for any job that exists.
    """
    client = connected()
    if job_id is None:
        found = client.recent(limit)
        if as_json:
            print_json(found)
        else:
            _print_jobs(found)
        return
    document = client.status(job_id)
    if as_json:
        print_json(document)
    else:
        print_details(tables(), document)


def _print_jobs(found: list[dict[str, Any]]) -> None:
    rows = [[str(one[name] or "") for name in ("id", "kind", "state")] + [moment(one["created_at"]), one["error"] or ""]
            for one in found]  # fmt: skip
    print_rows(tables(), ("id", "kind", "state", "created", "error"), rows, flowing=("error",))


def watch(job_id: JobId) -> None:
    """Follow a job to its end; Ctrl-C detaches.

    Prints the final status and exits with the job's code.
    """
    document = follow_or_detach(connected(), job_id)
    print_json(document)
    exit_for(document)


def cancel(job_id: JobId) -> None:
    """Stop a job. What was paid for is kept."""
    client = connected()
    client.cancel(job_id)
    print_json({key: client.status(job_id)[key] for key in ("id", "kind", "state")})


def retry(job_id: JobId, wait: Wait = False) -> None:
    """Run the failed rows of a batch again, and nothing else."""
    client = connected()
    client.retry(job_id)
    finish_submission(client, job_id, wait=wait)
