"""What a submission gives back: handles on jobs, and on the rows of those that have some."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from labelmill.contracts.argument_types import check_arguments
from labelmill.contracts.documents.jobs import (
    BatchDocument,
    DatasetDocument,
    EvaluationDocument,
    JobDocument,
    JobEntry,
    TrainingDocument,
)
from labelmill.contracts.ids import Kind, kind_of

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from labelmill.calls import Calls
    from labelmill.contracts.documents.results import ResultRow
    from labelmill.services.jobs.waiting import OnProgress
    from labelmill.services.results.reading import OnlyName
    from labelmill.services.results.rows import ResultsRequest

D_co = TypeVar("D_co", bound=JobDocument, covariant=True)


class Job(Generic[D_co]):
    """A submitted job. `warnings`: what did not stop its calls but should be known, such as Redis being down.

    >>> client.job(batch.id).status()["kind"]
    'batch'
    """

    client: Calls
    id: str
    warnings: tuple[str, ...]

    def __init__(self, client: Calls, job_id: str, warnings: tuple[str, ...] = ()) -> None:
        self.client = client
        self.id = job_id
        self.warnings = warnings

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    def _repr_html_(self) -> str:
        from labelmill.notebook import job_as_html

        return job_as_html(self.status())

    def status(self) -> D_co:
        """Its status document, as `labelmill status --json` prints it. Raises NotFound, DatabaseUnavailable."""
        return cast("D_co", self.client.status(self.id))

    def wait(self, timeout_s: float | None = None, *, on_progress: OnProgress | None = None) -> D_co:
        """Wait until it ends or waits for approval. Returns the last status document.

        `on_progress` is called with the job's entry, as `jobs` has it, at first and whenever it has changed; a notebook
        also shows a progress bar. While the database is unavailable it tries again for a quarter of an hour, which
        `warnings` tell. Raises NotFound, TimeoutError, DatabaseUnavailable.

        >>> batch.wait(on_progress=lambda job: None)["rows"]["pending"]
        0
        """
        (document,) = self.client.wait([self], timeout_s, on_progress=on_progress)
        return cast("D_co", document)

    def watch(self, timeout_s: float | None = None) -> Iterator[JobEntry]:
        """Follow it until it ends or waits for approval, as `Client.watch`."""
        return self.client.watch(self, timeout_s)

    def report(self) -> str:
        """The page about it, as `Client.report`."""
        return self.client.report(self.id)

    def cancel(self) -> None:
        """Stop it; what was paid for is kept. Raises InvalidInput when it has ended."""
        self.client.cancel(self.id)

    def retry(self, max_cost: float | None = None) -> None:
        """Run a batch's failed and unanswered rows again, or let a training or an evaluation go on that failed;
        `max_cost` as for `Client.retry`. Raises InvalidInput."""
        self.warnings += self.client.retry(self.id, max_cost).warnings


class Training(Job[TrainingDocument]):
    """A training."""

    def approve(self) -> None:
        """Approve its cost. Raises InvalidInput when it does not wait for approval."""
        self.warnings += self.client.approve(self.id).warnings


class Rows:
    """The rows of a job that have an answer or an error, in input order.

    `only`: of these the ones that "failed" or "abstained". `follow`: go on until the job ends, through outages of the
    database. `scores`: "all", "none" or "top:K", those of the K best labels.
    """

    client: Calls
    id: str

    def results(
        self, *, only: OnlyName | None = None, follow: bool = False, scores: str = "all"
    ) -> Iterator[ResultRow]:
        """The rows, one after the other, at constant memory. Raises NotFound at the first one, InvalidInput.

        >>> [(row["text"], row["predictions"]["intent"]["score"] > 0) for row in batch.results()]
        [('wake me at six', True), ('will it rain', True)]
        """
        return chain.from_iterable(self._pieces(only=only, follow=follow, scores=scores))

    def arrow(
        self,
        batch_rows: int = 10_000,
        *,
        only: OnlyName | None = None,
        follow: bool = False,
        scores: str = "all",
    ) -> Iterator[pa.RecordBatch]:
        """The rows as record batches of Arrow, at constant memory. Raises InvalidInput, also without pyarrow; NotFound.

        >>> [(batch.num_rows, batch.schema.names[:4]) for batch in batch.arrow()]
        [(2, ['row', 'id', 'text', 'intent'])]
        """
        check_arguments(Rows.arrow, locals())
        from labelmill.services.results.frames import result_batches

        return result_batches(self.client.context, self._request(only, follow, scores), batch_rows)

    def pandas(self, *, only: OnlyName | None = None, follow: bool = False, scores: str = "all") -> pd.DataFrame:
        """All rows as a data frame of pandas; `TARGET_scores` holds dictionaries. Raises as `arrow`."""
        from labelmill.services.results.frames import pandas_frame

        return pandas_frame(self.client.context, self._request(only, follow, scores))

    def polars(self, *, only: OnlyName | None = None, follow: bool = False, scores: str = "all") -> pl.DataFrame:
        """All rows as a data frame of Polars; `TARGET_scores` holds lists of keys and values. Raises as `arrow`."""
        from labelmill.services.results.frames import polars_frame

        return polars_frame(self.client.context, self._request(only, follow, scores))

    def dataset(self, *, only: OnlyName | None = None, follow: bool = False, scores: str = "all") -> datasets.Dataset:
        """All rows as a dataset of Hugging Face's library; `TARGET_scores` holds lists of `label` and `score`.
        Raises as `arrow`."""
        from labelmill.services.results.frames import hub_dataset

        return hub_dataset(self.client.context, self._request(only, follow, scores))

    def _pieces(
        self, *, only: OnlyName | None = None, follow: bool = False, scores: str = "all"
    ) -> Iterator[list[ResultRow]]:
        """The rows, one after the other, at constant memory. Raises NotFound at the first one, InvalidInput."""
        from labelmill.services.results.rows import result_pieces

        return result_pieces(self.client.context, self._request(only, follow, scores))

    def _request(self, only: OnlyName | None, follow: bool, scores: str) -> ResultsRequest:  # noqa: FBT001 - passed on
        check_arguments(Rows._request, locals())
        from labelmill.services.results.rows import ResultsRequest

        return ResultsRequest.of(self.id, only=only, follow=follow, scores=scores)


class Batch(Job[BatchDocument], Rows):
    """A bulk classification."""


class Evaluation(Job[EvaluationDocument], Rows):
    """An evaluation of a model."""


class Preparation(Job[DatasetDocument]):
    """The preparation of a dataset."""


_HANDLES: dict[Kind, type[Job[JobDocument]]] = {
    Kind.DATASET: Preparation,
    Kind.TRAINING: Training,
    Kind.BATCH: Batch,
    Kind.EVALUATION: Evaluation,
}


def handle_of(client: Calls, job_id: str) -> Job[JobDocument]:
    """The handle for the kind of job that the id names."""
    kind = kind_of(job_id)
    return (Job if kind is None else _HANDLES[kind])(client, job_id)
