"""`labelmill results`, and how `classify -o` writes files of results."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from labelmill.cli.context import connected, lost_reads, messages, tables
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
from labelmill.client import Client
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.ids import Kind, kind_of
from labelmill.contracts.specs import ClassifySpec
from labelmill.core.readers import Input, expand_source
from labelmill.core.storage.data_folder import local_source
from labelmill.services.jobs.lost_reads import LostReads
from labelmill.services.results.csv_files import CsvOptions, parse_delimiter
from labelmill.services.results.export import check_output, write_results
from labelmill.services.results.kept_columns import keep_columns
from labelmill.services.results.reading import Only, facts_of_batch, read_result_lines
from labelmill.services.results.scores import ALL, NONE, ScoreChoice, parse_scores


def register(app: typer.Typer) -> None:
    """Add `results`."""
    app.command("results", rich_help_panel=ANY_JOB)(results)


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What results are written with. `scores` None: the format's own default."""

    scores: ScoreChoice | None = None
    keep: Sequence[str] = ()
    csv: CsvOptions = CsvOptions()  # noqa: RUF009 - it is frozen

    @classmethod
    def of_command(
        cls,
        output: Path | None,
        *,
        scores: str | None,
        keep: Sequence[str] | None,
        delimiter: str | None,
        bom: bool,
        no_escape: bool,
    ) -> OutputOptions:
        """From a command's options. Raises InvalidInput, also for what goes with CSV alone where `output` is none."""
        for_csv = {"--output-delimiter": delimiter is not None, "--bom": bom, "--no-escape": no_escape}
        is_csv = output is not None and output.suffix.lower() == ".csv"
        if not is_csv and (given := [option for option, is_given in for_csv.items() if is_given]):
            raise InvalidInput(f"{' and '.join(given)} only go with CSV: -o FILE.csv")
        csv = CsvOptions("," if delimiter is None else parse_delimiter(delimiter), bom, not no_escape)
        return cls(None if scores is None else parse_scores(scores), tuple(keep or ()), csv)

    def scores_of(self, job_id: str, output: Path | None) -> ScoreChoice:
        """Those that were asked for; else all, but none in the CSV of a batch."""
        if self.scores is not None:
            return self.scores
        is_csv = output is not None and output.suffix.lower() == ".csv"
        return NONE if is_csv and kind_of(job_id) is not Kind.EVALUATION else ALL


_DEFAULTS = OutputOptions()


def results(
    job_id: JobId,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A .jsonl, .csv or .parquet file.", show_default="JSONL on stdout"),
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
    if output is not None:
        check_output(output)
    options = OutputOptions.of_command(
        output, scores=scores, keep=keep, delimiter=output_delimiter, bom=bom, no_escape=no_escape
    )
    lost = lost_reads(job_id) if follow else None
    save_results(connected(), job_id, output, options, only=only, follow=follow, lost=lost)


def save_results(
    client: Client,
    job_id: str,
    output: Path | None,
    options: OutputOptions = _DEFAULTS,
    *,
    only: Only | None = None,
    follow: bool = False,
    lost: LostReads | None = None,
) -> None:
    """Stream a job's rows to a file or stdout, with a progress bar. `lost`: what becomes of reads that the database did
    not answer."""
    is_table = output is not None and output.suffix.lower() != ".jsonl"  # its header comes before its rows
    batch = facts_of_batch(client.engine, job_id, follow=follow, needs_targets=is_table, lost=lost)
    spec = ClassifySpec(**batch.options) if batch else None
    if output is not None and spec:
        check_output(output, _files_of(client, spec))
    scores = options.scores_of(job_id, output)
    with bar(messages()) as progress:
        task = progress.add_task("writing results", total=None)

        blocks = read_result_lines(client.engine, job_id, only=only, follow=follow, scores=scores, lost=lost)
        if options.keep and spec:
            source = local_source(client.settings.data_dir, spec.source)
            blocks = keep_columns(blocks, spec.model_copy(update={"source": source}), options.keep)
        count = write_results(
            blocks,
            batch.targets if batch else [],
            output,
            options.keep,
            with_scores=scores != NONE,
            csv=options.csv,
            on_progress=partial(progress.advance, task),
        )
    if output is not None:
        messages().print(f"{count} rows in {output}")
    if batch is None:
        messages().print(f"{job_id} has no rows (yet): batches and evaluations have some once they run")


def _files_of(client: Client, spec: ClassifySpec) -> Sequence[Input]:
    """The files that a batch was read from, as far as they are here."""
    try:
        return expand_source(local_source(client.settings.data_dir, spec.source))
    except InvalidInput:
        return ()


def labels_are_shown(source: str, *, as_json: bool) -> bool:
    """Whether somebody at a terminal handed texts in on standard input: they see labels, not a status document."""
    return source == "-" and not as_json and sys.stdout.isatty()


def show_labels(client: Client, batch_id: str, lost: LostReads | None = None) -> None:
    """A table of a batch's labels on the terminal, one for each few hundred rows."""
    batch = facts_of_batch(client.engine, batch_id, follow=False, needs_targets=True, lost=lost)
    targets = batch.targets if batch else []
    headings = ["id", *chain.from_iterable((target, "score") for target in targets), "error", "text"]
    for lines in read_result_lines(client.engine, batch_id, scores=NONE, lost=lost):
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
