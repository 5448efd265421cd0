"""`labelmill status`, `watch`, `cancel`, `retry`: any job, by id."""

from __future__ import annotations

from typing import Annotated

import typer

from labelmill.cli.context import (
    connected,
    finish_submission,
    finish_wait,
    follow_or_detach,
    print_json,
    tables,
    wants_json,
)
from labelmill.cli.job_table import at_a_glance, print_jobs
from labelmill.cli.options import ANY_JOB, MOST_LISTED, AsJson, JobId, Wait, parse_metadata
from labelmill.cli.tables import print_details
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.ids import Kind
from labelmill.services.jobs import actions, retrying
from labelmill.services.jobs.documents import job_status
from labelmill.services.jobs.listing import JobsRequest, list_jobs
from labelmill.services.jobs.requests import JobRequest, RetryRequest


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (status, watch, cancel, retry):
        app.command(command.__name__, rich_help_panel=ANY_JOB)(command)


def status(
    job_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="A job's id; without one, the latest jobs.")
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="List jobs of this kind.")] = None,
    state: Annotated[str | None, typer.Option(help="List jobs in this state: running, failed, ….")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="List jobs with this metadata. Repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(help="How many jobs to list.", min=1, max=MOST_LISTED)] = 20,
    after: Annotated[str | None, typer.Option(metavar="ID", help="List jobs older than this one.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="List the batches that trainings and evaluations run for themselves too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a job, or list the latest jobs.

    Exits with 0 for any job that exists.
    """
    if job_id is not None and (kind or state or metadata or after or everything):
        raise InvalidInput("--kind, --state, --metadata, --after and --all list jobs: leave out the id")
    context = connected()
    if job_id is None:
        jobs = list_jobs(context, JobsRequest(kind, state, limit, after, everything, parse_metadata(metadata)))
        if wants_json(as_json):
            print_json(jobs)
        else:
            print_jobs(tables(), jobs)
        return
    document = job_status(context, JobRequest(job_id))
    if wants_json(as_json):
        print_json(document)
    else:
        print_details(tables(), at_a_glance(document))


def watch(job_id: JobId, as_json: AsJson = False) -> None:
    """Follow a job to its end; Ctrl-C detaches.

    Tells how it ended and exits with the job's code.
    """
    finish_wait(follow_or_detach(connected(), job_id), as_json=as_json)


def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """Stop a job. What was paid for is kept."""
    context = connected()
    finish_submission(context, actions.cancel(context, JobRequest(job_id)), as_json=as_json)


def retry(
    job_id: JobId,
    max_cost: Annotated[
        float | None,
        typer.Option(
            metavar="USD",
            help="A new cap for the whole job, with what was spent before.",
            show_default="the cap that it has",
        ),
    ] = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Run the failed and unanswered rows of a batch again, and nothing else.

    A training or an evaluation that failed goes on from what it was answered so far.
    """
    context = connected()
    submitted = retrying.retry(context, RetryRequest(job_id, max_cost))
    finish_submission(context, submitted, wait=wait, as_json=as_json)
