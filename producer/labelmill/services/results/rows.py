"""The rows of a job, for callers."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from labelmill.services.context import ServiceContext
from labelmill.services.jobs.lost_reads import LostReads
from labelmill.services.results.reading import Only, facts_of_batch, read_result_lines
from labelmill.services.results.scores import ALL, ScoreChoice


@dataclass(frozen=True)
class ResultsRequest:
    """The rows of a batch or an evaluation in input order, those that have an answer or an error.

    `only`: of these the ones that failed, or that abstained. `follow`: go on until the batch ends.
    """

    job_id: str
    only: Only | None = None
    follow: bool = False
    scores: ScoreChoice = ALL


def result_lines(
    context: ServiceContext, request: ResultsRequest, lost: LostReads | None = None
) -> Generator[bytes, None, None]:
    """Rows as lines of JSON, some hundreds in one piece. `lost` retries failed reads; without it, and without `follow`,
    the first failed read ends the reading. Raises NotFound at the first row."""
    return read_result_lines(
        context.engine, request.job_id, only=request.only, follow=request.follow, scores=request.scores, lost=lost
    )


def result_rows(context: ServiceContext, request: ResultsRequest) -> Iterator[dict[str, Any]]:
    """Rows as `{"row", "id", "text", "predictions", "error"}`. Raises NotFound at the first one."""
    for lines in result_lines(context, request):
        yield from map(orjson.loads, lines.splitlines())


def targets_of(context: ServiceContext, request: ResultsRequest, lost: LostReads | None = None) -> list[str]:
    """The targets of a job's model; none where it has no rows. Raises NotFound."""
    facts = facts_of_batch(context.engine, request.job_id, follow=request.follow, needs_targets=True, lost=lost)
    return facts.targets if facts else []
