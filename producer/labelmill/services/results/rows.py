"""The rows of a job, for callers."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from labelmill.contracts.bounds import shown
from labelmill.contracts.documents.results import ResultRow
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.lost_reads import LostReads
from labelmill.services.results.reading import (
    Only,
    OnlyName,
    facts_of_batch,
    read_result_chunks,
    read_result_lines,
)
from labelmill.services.results.scores import ALL, ScoreChoice, parse_scores

if TYPE_CHECKING:
    from labelmill.services.results.lines import ChunkResults


@dataclass(frozen=True)
class ResultsRequest:
    """The rows of a batch or an evaluation in input order, those that have an answer or an error.

    `only`: of these the ones that failed, or that abstained. `follow`: go on until the batch ends.
    """

    job_id: str
    only: Only | None = None
    follow: bool = False
    scores: ScoreChoice = ALL

    @classmethod
    def of(
        cls, job_id: str, *, only: OnlyName | None = None, follow: bool = False, scores: str = "all"
    ) -> ResultsRequest:
        """From what a person writes. Raises InvalidInput."""
        names = [each.value for each in Only]
        if only is not None and only not in names:
            raise InvalidInput(f"{named('only')} is {' or '.join(names)}, not {shown(str(only))}")
        return cls(job_id, None if only is None else Only(only), follow, parse_scores(scores))


def result_lines(
    context: ServiceContext, request: ResultsRequest, lost: LostReads | None = None
) -> Generator[bytes, None, None]:
    """Rows as lines of JSON, some hundreds in one piece. `lost` retries failed reads; without it, and without `follow`,
    the first failed read ends the reading. Raises NotFound at the first row."""
    return read_result_lines(
        context.engine, request.job_id, only=request.only, follow=request.follow, scores=request.scores, lost=lost
    )


def result_pieces(context: ServiceContext, request: ResultsRequest) -> Iterator[list[ResultRow]]:
    """Rows, some hundreds in one piece, as soon as they are there. Raises NotFound at the first one."""
    for lines in result_lines(context, request):
        yield list(map(orjson.loads, lines.splitlines()))


def result_chunks(context: ServiceContext, request: ResultsRequest) -> Iterator[ChunkResults]:
    """Rows in columns, chunk by chunk. Raises NotFound at the first one."""
    return read_result_chunks(
        context.engine, request.job_id, only=request.only, follow=request.follow, scores=request.scores
    )


def targets_of(context: ServiceContext, request: ResultsRequest, lost: LostReads | None = None) -> list[str]:
    """The targets of a job's model; none where it has no rows. Raises NotFound."""
    facts = facts_of_batch(context.engine, request.job_id, follow=request.follow, needs_targets=True, lost=lost)
    return facts.targets if facts else []
