"""Writing the rows of a job to a file, or to stdout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from labelmill.contracts.errors import InvalidInput, StorageRefused, StorageUnavailable
from labelmill.contracts.field_names import named
from labelmill.contracts.ids import Kind, kind_of
from labelmill.contracts.specs import ClassifySpec
from labelmill.core.readers import Input, inputs_of
from labelmill.core.storage.references import DATASETS, reference_in
from labelmill.core.storage.remote import RemoteFiles
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.lost_reads import LostReads
from labelmill.services.results.csv_files import CsvOptions, parse_delimiter
from labelmill.services.results.export import check_output, write_parquet_results, write_results
from labelmill.services.results.formats import PARQUET, Output, format_of
from labelmill.services.results.kept_columns import check_kept_columns, keep_columns, kept_reader
from labelmill.services.results.reading import Only, facts_of_batch, read_result_chunks
from labelmill.services.results.scores import ALL, NONE, ScoreChoice, parse_scores
from labelmill.services.results.tables import ResultTable

if TYPE_CHECKING:
    from labelmill.services.results.lines import ChunkResults


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How results are written. `scores` None: the format's default."""

    scores: ScoreChoice | None = None
    keep: Sequence[str] = ()
    csv: CsvOptions = CsvOptions()  # noqa: RUF009 - it is frozen

    @classmethod
    def of(
        cls,
        output: Output | None,
        *,
        scores: str | None = None,
        keep: Sequence[str] | None = None,
        output_delimiter: str | None = None,
        bom: bool = False,
        no_escape: bool = False,
    ) -> Self:
        """From what a person writes. Raises InvalidInput, also for options of CSV where `output` is not CSV."""
        for_csv = {"output_delimiter": output_delimiter is not None, "bom": bom, "no_escape": no_escape}
        if not format_of(output).has_csv_options and (
            csv_only := [named(field) for field, is_given in for_csv.items() if is_given]
        ):
            raise InvalidInput(f"{' and '.join(csv_only)} only go with CSV: {named('output', 'FILE.csv')}")
        csv = CsvOptions("," if output_delimiter is None else parse_delimiter(output_delimiter), bom, not no_escape)
        return cls(None if scores is None else parse_scores(scores), tuple(keep or ()), csv)

    def scores_of(self, job_id: str, output: Output | None) -> ScoreChoice:
        """The requested scores; by default all, but none in the CSV of a batch."""
        if self.scores is not None:
            return self.scores
        return NONE if format_of(output).leaves_scores_out and kind_of(job_id) is not Kind.EVALUATION else ALL


@dataclass(frozen=True)
class SaveRequest:
    """The rows of a batch or an evaluation in a file; `output` None: as lines of JSON on stdout."""

    job_id: str
    output: Output | None = None
    options: OutputOptions = OutputOptions()
    only: Only | None = None
    follow: bool = False


@dataclass(frozen=True)
class Saved:
    """`rows`: the number of rows written. `has_rows`: False for a job that has none, or none yet."""

    rows: int
    has_rows: bool


def check_save(
    output: Output, options: OutputOptions, remote: RemoteFiles, classified: ClassifySpec | None = None
) -> None:
    """Raise InvalidInput for results that cannot be written, as far as this is known before a batch runs. `classified`:
    the batch that is about to be submitted. Raises StorageUnavailable, StorageRefused for an output in S3."""
    inputs = inputs_of(classified.source, remote) if classified is not None else ()
    check_output(output, inputs, remote)
    if options.keep and classified is not None:
        check_kept_columns(inputs, options.keep, classified.reading)


def save_results(
    context: ServiceContext,
    request: SaveRequest,
    *,
    lost: LostReads | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Saved:
    """Stream a job's rows. `lost` retries failed reads. `on_progress` is called with the number of rows written since
    its last call. Raises NotFound, InvalidInput, CannotWrite."""
    job_id, output, options = request.job_id, request.output, request.options
    batch = facts_of_batch(
        context.engine, job_id, follow=request.follow, needs_targets=format_of(output).is_table, lost=lost
    )
    spec = ClassifySpec(**batch.options) if batch else None
    if output is not None and spec:
        check_output(output, _files_of(context, spec), context.remote)
    scores = options.scores_of(job_id, output)
    chunks = read_result_chunks(
        context.engine, job_id, only=request.only, follow=request.follow, scores=scores, lost=lost
    )
    targets = batch.targets if batch else []
    read_kept = None
    if options.keep and spec:
        read_kept = kept_reader(spec, options.keep, partial(_inputs_of, context, spec))
    if output is not None and format_of(output) is PARQUET:
        rows = write_parquet_results(
            _counted(chunks, on_progress),
            ResultTable(targets, options.keep, with_scores=scores != NONE),
            output,
            read_kept,
            remote=context.remote,
        )
    else:
        blocks = (lines for chunk in chunks for lines in chunk.lines())
        rows = write_results(
            blocks if read_kept is None else keep_columns(blocks, read_kept),
            targets,
            output,
            options.keep,
            remote=context.remote,
            with_scores=scores != NONE,
            csv=options.csv,
            on_progress=on_progress,
        )
    return Saved(rows, batch is not None)


def _counted(chunks: Iterable[ChunkResults], on_progress: Callable[[int], None]) -> Iterator[ChunkResults]:
    for chunk in chunks:
        yield chunk
        on_progress(len(chunk.rows()))


def _inputs_of(context: ServiceContext, spec: ClassifySpec) -> Sequence[Input]:
    """What a batch was read from. Raises InvalidInput where it is not here."""
    reference = reference_in(spec.source)
    return inputs_of(spec.source, context.remote) if reference is None else [context.storage.file(reference, DATASETS)]


def _files_of(context: ServiceContext, spec: ClassifySpec) -> Sequence[Input]:
    """The files that a batch was read from, as far as they are here."""
    try:
        return _inputs_of(context, spec) if spec.source != "-" else ()
    except (InvalidInput, StorageRefused, StorageUnavailable):
        return ()
