"""`labelmill report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labelmill.cli.context import connected, messages, print_json, wants_json
from labelmill.cli.options import ANY_JOB, AsJson, JobId
from labelmill.contracts.control_characters import visible
from labelmill.services.jobs.requests import JobRequest


def register(app: typer.Typer) -> None:
    """Add `report`."""
    example = "Example: labelmill report eval_01a2… -o report.html"
    app.command("report", rich_help_panel=ANY_JOB, epilog=example)(report)


def report(
    job_id: JobId,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The HTML file.", show_default="ID.html")
    ] = None,
    assets: Annotated[
        Path | None, typer.Option(help="A folder for a PNG and a JSON of every figure.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a page about a job: one HTML file that loads nothing.

    Exits with 0 for any job that exists.
    """
    # what loads NumPy stays away from commands that only look
    from labelmill.report.gather import gather_report  # noqa: PLC0415
    from labelmill.report.writing import write_report  # noqa: PLC0415

    page = output or Path(f"{job_id}.html")
    found = gather_report(connected(), JobRequest(job_id))
    written = write_report(found, page, assets)
    if wants_json(as_json):
        print_json({"id": job_id, "page": str(page), "files": [str(file) for file in written]})
    else:
        typer.echo(visible(str(page)))
    if len(written) > 1:
        messages().print(f"{len(written) - 1} files in {assets}")
