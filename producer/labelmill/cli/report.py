"""`labelmill report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labelmill.cli.context import connected, messages, print_json, wants_json
from labelmill.cli.options import ANY_JOB, AsJson, JobId
from labelmill.contracts.control_characters import visible
from labelmill.contracts.errors import InvalidInput
from labelmill.core.storage.remote import is_url
from labelmill.services.jobs.requests import JobRequest
from labelmill.services.results.formats import output_of


def register(app: typer.Typer) -> None:
    """Add `report`."""
    example = "Example: labelmill report eval_01a2… -o report.html"
    app.command("report", rich_help_panel=ANY_JOB, epilog=example)(report)


def report(
    job_id: JobId,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The HTML file, or s3://BUCKET/KEY.", show_default="ID.html"
        ),
    ] = None,
    assets: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="A folder for a PNG and a JSON of every figure.", show_default=False),
    ] = None,
    suspects: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write every row whose label is probably wrong too, as .csv or .jsonl: of a training by embedding "
            "those of its train split, of an evaluation those of its split.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a page about a job: one HTML file that loads nothing.

    Exits with 0 for any job that exists.
    """
    # imported here because it loads NumPy, which other commands do not need
    from labelmill.report.gather import gather_report  # noqa: PLC0415
    from labelmill.report.suspects import check_suspects_file, write_suspects  # noqa: PLC0415
    from labelmill.report.writing import write_report  # noqa: PLC0415

    suspects_file = None if suspects is None else output_of(suspects)
    if suspects_file is not None:
        check_suspects_file(suspects_file)
    if assets is not None and is_url(assets):
        raise InvalidInput(f"--assets {assets}: figures are written to a folder of this machine")
    page = output_of(output or f"{job_id}.html")
    context, request = connected(), JobRequest(job_id)
    gathered = gather_report(context, request)
    listed = None if suspects_file is None else write_suspects(context, request, suspects_file)
    written = write_report(gathered, page, Path(assets) if assets is not None else None, context.remote)
    if wants_json(as_json):
        document: dict[str, object] = {"id": job_id, "page": str(page), "files": [str(file) for file in written]}
        if listed is not None:
            document |= {"suspects": str(suspects), "suspected": listed.rows}
        print_json(document)
    else:
        typer.echo(visible(str(page)))
    if listed is not None:
        messages().print(f"{listed.rows:,} rows with a label that is probably wrong in {visible(str(suspects))}")
    if len(written) > 1:
        messages().print(f"{len(written) - 1} files in {assets}")
