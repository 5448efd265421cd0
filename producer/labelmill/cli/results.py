"""`labelmill results`, and how `classify -o` writes files of results."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Annotated, Any

import orjson
import typer

from labelmill.cli.context import connected, lost_reads, messages, settings, tables
from labelmill.cli.figures import count
from labelmill.cli.options import (
    ANY_JOB,
    Bom,
    JobId,
    Keep,
    NoEscape,
    OutputDelimiter,
    Scores,
)
from labelmill.cli.progress import bar
from labelmill.cli.tables import Cell, print_rows
from labelmill.contracts.ids import Kind, kind_of
from labelmill.core.storage.opening import remote_files
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.lost_reads import LostReads
from labelmill.services.results.formats import output_of
from labelmill.services.results.reading import Only
from labelmill.services.results.rows import ResultsRequest, result_lines, targets_of
from labelmill.services.results.saving import OutputOptions, SaveRequest, check_save, save_results
from labelmill.services.results.scores import NONE


def register(app: typer.Typer) -> None:
    """Add `results`."""
    app.command("results", rich_help_panel=ANY_JOB)(results)


def results(
    job_id: JobId,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="A .jsonl, .csv or .parquet file, or s3://BUCKET/KEY.",
            show_default="JSONL on stdout",
        ),
    ] = None,
    only: Annotated[Only | None, typer.Option(help="Only rows that failed, or that abstained.")] = None,
    scores: Scores = None,
    keep: Keep = None,
    output_delimiter: OutputDelimiter = None,
    bom: Bom = False,
    no_escape: NoEscape = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the batch ends.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Rows on stdout are JSON in any case.")] = False,
) -> None:
    """Write the rows of a batch or an evaluation in input order.

    Exits with 0 for any job that exists.
    """
    del as_json
    target = None if output is None else output_of(output)
    options = OutputOptions.of(
        target, scores=scores, keep=keep, output_delimiter=output_delimiter, bom=bom, no_escape=no_escape
    )
    if target is not None:
        check_save(target, options, remote_files(settings()))
    lost = lost_reads(job_id) if follow else None
    save(connected(), SaveRequest(job_id, target, options, only, follow), lost)


def save(context: ServiceContext, request: SaveRequest, lost: LostReads | None = None) -> None:
    """Stream a job's rows to a file or stdout, with a progress bar. `lost` retries failed reads."""
    with bar(messages()) as progress:
        task = progress.add_task("writing results", total=None)
        saved = save_results(context, request, lost=lost, on_progress=partial(progress.advance, task))
        progress.update(task, completed=saved.rows, total=saved.rows)
    if request.output is not None:
        messages().print(f"{count(saved.rows, 'rows')} in {request.output}")
    if not saved.has_rows:
        messages().print(f"{request.job_id} {_why_no_rows(request.job_id)}")


def _why_no_rows(job_id: str) -> str:
    kind = kind_of(job_id)
    if kind in (Kind.DATASET, Kind.TRAINING):
        return f"is a {kind.value}: only batches and evaluations have rows"
    return "has no rows yet: it has some once it runs"


def labels_are_shown(source: str, *, as_json: bool) -> bool:
    """Whether texts came from standard input and stdout is a terminal: then labels are shown, not a status document."""
    return source == "-" and not as_json and sys.stdout.isatty()


def show_labels(context: ServiceContext, batch_id: str, lost: LostReads | None = None) -> None:
    """A table of a batch's labels on the terminal, one for each few hundred rows."""
    request = ResultsRequest(batch_id, scores=NONE)
    targets = targets_of(context, request, lost)
    headings = ["id", *chain.from_iterable((target, "score") for target in targets), "error", "text"]
    for lines in result_lines(context, request, lost):
        rows = [_row_of_table(document, targets) for document in map(orjson.loads, lines.splitlines())]
        print_rows(tables(), headings, rows, flowing=("error", "text"))


def _row_of_table(document: dict[str, Any], targets: Iterable[str]) -> list[Cell]:
    def cells() -> Iterator[Cell]:
        yield document["id"] or ""
        for target in targets:
            answer = document["predictions"].get(target)
            yield "" if answer is None else _label_of(answer)
            yield "" if answer is None else f"{answer['score']:.3f}"
        yield (document["error"] or {}).get("message", "")
        yield document["text"]

    return list(cells())


def _label_of(answer: dict[str, Any]) -> str:
    if "labels" in answer:
        return ", ".join(answer["labels"]) or "none"
    return f"abstained (best: {answer['best']})" if answer.get("abstained") else str(answer["label"])
