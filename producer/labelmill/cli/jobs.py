"""`labelmill status`, `watch`, `results`, `cancel`, `retry`: any job, by id."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from labelmill.cli.context import connected, exit_for, finish_submission, follow_or_detach, messages, print_json, tables
from labelmill.cli.options import ANY_JOB, MOST_LISTED, AsJson, JobId, Wait
from labelmill.cli.progress import bar
from labelmill.cli.tables import moment, print_details, print_rows
from labelmill.client import Client
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.readers import expand_source
from labelmill.contracts.specs import ClassifySpec
from labelmill.contracts.storage import local_source
from labelmill.results.export import check_output, write_results
from labelmill.results.kept_columns import keep_columns
from labelmill.results.reading import Only, facts_of_batch, read_result_lines


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (status, watch, results, cancel, retry):
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


def results(
    job_id: JobId,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A .jsonl, .csv or .parquet file.", show_default="JSONL on stdout"),
    ] = None,
    only: Annotated[Only | None, typer.Option(help="Only rows that failed, or that abstained.")] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="A column of the source file to write beside the results. Repeatable; reads the file again."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the batch ends.")] = False,
) -> None:
    """Write the rows of a batch or an evaluation in input order.

    Exits with 0 for any job that exists.
    """
    if output is not None:
        check_output(output)
    save_results(connected(), job_id, output, only=only, follow=follow, keep=keep or ())


def save_results(
    client: Client,
    job_id: str,
    output: Path | None,
    *,
    only: Only | None = None,
    follow: bool = False,
    keep: Sequence[str] = (),
) -> None:
    """Stream a job's rows to a file or stdout, with a progress bar."""
    is_table = output is not None and output.suffix.lower() != ".jsonl"  # its header comes before its rows
    batch = facts_of_batch(client.engine, job_id, follow=follow, needs_targets=is_table)
    spec = ClassifySpec(**batch.options) if batch else None
    if output is not None and spec:
        check_output(output, _files_of(client, spec))
    with bar(messages()) as progress:
        task = progress.add_task("writing results", total=None)

        blocks = read_result_lines(client.engine, job_id, only=only, follow=follow)
        if keep and spec:
            source = local_source(client.settings.data_dir, spec.source)
            blocks = keep_columns(blocks, spec.model_copy(update={"source": source}), keep)
        count = write_results(
            blocks, batch.targets if batch else [], output, keep, on_progress=partial(progress.advance, task)
        )
    if output is not None:
        messages().print(f"{count} rows in {output}")
    if batch is None:
        messages().print(f"{job_id} has no rows (yet): batches and evaluations have some once they run")


def _files_of(client: Client, spec: ClassifySpec) -> Sequence[Path]:
    """The files that a batch was read from, as far as they are here."""
    try:
        return expand_source(local_source(client.settings.data_dir, spec.source))
    except InvalidInput:
        return ()


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
