"""The Python client: submit jobs, follow them, fetch results. A thin translation to the services."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from labelmill.contracts.documents.comparison import ComparisonDocument
from labelmill.contracts.documents.datasets import DatasetEntry
from labelmill.contracts.documents.jobs import (
    BatchDocument,
    DatasetDocument,
    EvaluationDocument,
    JobDocument,
    JobEntry,
    TrainingDocument,
)
from labelmill.contracts.documents.models import ModelEntry
from labelmill.contracts.documents.money import SpendDocument
from labelmill.contracts.field_names import Notice
from labelmill.contracts.job_kinds import RESTING
from labelmill.core.settings import Settings, load_producer_settings
from labelmill.services import batches, datasets, evaluations, spending, trainings
from labelmill.services.context import open_context
from labelmill.services.jobs import actions
from labelmill.services.jobs.documents import job_status
from labelmill.services.jobs.listing import JobsRequest, list_jobs
from labelmill.services.jobs.lost_reads import LostReads
from labelmill.services.jobs.requests import JobRequest
from labelmill.services.models import registry
from labelmill.services.results.reading import Only
from labelmill.services.results.rows import ResultsRequest, result_rows
from labelmill.services.submissions.accepted import Accepted, start

D = TypeVar("D", bound=JobDocument)


class Client:
    """A connection to a Labelmill installation. Close it, or use it as a context manager.

    `warnings` collects what did not stop a call but should be known, such as Redis being down; a job has those of its
    own submission. Raises DatabaseUnavailable, DatabaseOutdated, DatabaseUnsuitable.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_producer_settings()
        self.context = open_context(self.settings)
        self.warnings: list[str] = []

    def close(self) -> None:
        """Close the connections to the database and to Redis. Jobs go on."""
        self.context.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def prepare(
        self,
        name: str,
        source: str,
        *,
        targets: Sequence[str] = (),
        where: Sequence[str] = (),
        split: str = "80/10/10",
        text: str = "text",
        min_per_label: int | None = None,
        max_per_label: int | None = None,
        seed: int = 42,
        dedupe: bool = False,
        separator: str | None = None,
        on_bad_row: str = "fail",
        encoding: str | None = None,
        delimiter: str | None = None,
        quoting: str | None = None,
        format: str = "columns",  # noqa: A002 - the option's name
        idempotency_key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Job[DatasetDocument]:
        """Submit the preparation of `source` as dataset `name`. `targets` are `NAME=COLUMN[:multi]`, `where` is
        `COLUMN=VALUE`. Raises InvalidInput, Permanent when the data folder cannot be written."""
        request = datasets.PrepareRequest.of(
            name,
            source,
            targets=targets,
            where=where,
            split=split,
            text=text,
            min_per_label=min_per_label,
            max_per_label=max_per_label,
            seed=seed,
            dedupe=dedupe,
            separator=separator,
            on_bad_row=on_bad_row,
            encoding=encoding,
            delimiter=delimiter,
            quoting=quoting,
            format=format,
            idempotency_key=idempotency_key,
            metadata=metadata,
        )
        accepted = datasets.accept_preparation(self.context, request)
        return Job(self, accepted.id, self._start(accepted))

    def train(
        self,
        name: str,
        dataset: str,
        *,
        method: str = trainings.DEFAULT_METHOD,
        max_cost: float | None = None,
        yes: bool = False,
        base_model: str | None = None,
        steps: int | None = None,
        learning_rate: float | None = None,
        wandb_project: str | None = None,
        suffix: str | None = None,
        target_weights: Mapping[str, float] | None = None,
        descriptions: Mapping[str, str] | None = None,
        shots: int | None = None,
        shot_selection: str | None = None,
        texts_per_prompt: int | None = None,
        optimize: str | None = None,
        target_precision: Mapping[str, float] | None = None,
        idempotency_key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Training:
        """Submit a training of a new version of model `name`. It waits for `approve` if it would cost more than
        `max_cost`, or anything at all where there is neither `max_cost` nor `yes`. Raises NotFound, InvalidInput.

        `optimize`: what multi-label thresholds are tuned for, `micro`, `macro` or `precision`. `target_precision`:
        target, TARGET.LABEL or `*` for all → the precision that is to be certified.
        """
        request = trainings.TrainRequest.of(
            name,
            dataset,
            method=method,
            max_cost=max_cost,
            yes=yes,
            base_model=base_model,
            steps=steps,
            learning_rate=learning_rate,
            wandb_project=wandb_project,
            suffix=suffix,
            target_weights=target_weights,
            descriptions=descriptions,
            shots=shots,
            shot_selection=shot_selection,
            texts_per_prompt=texts_per_prompt,
            optimize=optimize,
            target_precision=target_precision,
            idempotency_key=idempotency_key,
            metadata=metadata,
        )
        accepted = trainings.accept_training(self.context, request)
        return Training(self, accepted.id, self._start(accepted))

    def classify(
        self,
        source: str,
        model: str,
        *,
        text: str = "text",
        id_column: str | None = None,
        mode: str = "realtime",
        priority: str = "normal",
        thresholds: Mapping[str, float] | None = None,
        multi: Sequence[str] = (),
        cache: bool = False,
        chats: bool = False,
        on_bad_row: str = "fail",
        encoding: str | None = None,
        delimiter: str | None = None,
        quoting: str | None = None,
        idempotency_key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Batch:
        """Submit a batch: every text of `source`, a path, a glob or `-`. `thresholds`: target (or `*` for all) → the
        minimum of the best score; below it a row abstains. Raises InvalidInput, NotFound."""
        request = batches.ClassifyRequest.of(
            source,
            model,
            text=text,
            id_column=id_column,
            mode=mode,
            priority=priority,
            thresholds=thresholds,
            multi=multi,
            cache=cache,
            chats=chats,
            on_bad_row=on_bad_row,
            encoding=encoding,
            delimiter=delimiter,
            quoting=quoting,
            idempotency_key=idempotency_key,
            metadata=metadata,
        )
        accepted = batches.accept_batch(self.context, request)
        return Batch(self, accepted.id, self._start(accepted))

    def evaluate(
        self,
        model: str,
        dataset: str,
        split: str = "test",
        *,
        calibrate: bool = False,
        idempotency_key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Job[EvaluationDocument]:
        """Measure a model on a split of a dataset. Raises InvalidInput, NotFound."""
        request = evaluations.EvaluateRequest(model, dataset, split, calibrate, idempotency_key, metadata or {})
        accepted = evaluations.accept_evaluation(self.context, request)
        return Job(self, accepted.id, self._start(accepted))

    def compare(self, models: Sequence[str], dataset: str, split: str = "test") -> list[Job[EvaluationDocument]]:
        """One evaluation of each model on the same rows: an existing one, or a new one. When they have ended,
        `comparison` compares them. Raises InvalidInput, NotFound, before anything is paid for."""
        comparison = evaluations.accept_comparison(self.context, evaluations.CompareRequest(models, dataset, split))
        warnings = {accepted.id: self._start(accepted) for accepted in comparison.accepted}
        return [Job(self, job_id, warnings.get(job_id, ())) for job_id in comparison.evaluations]

    def comparison(
        self, evaluations: Sequence[str], level: float = 0.05, margin: float | None = None
    ) -> ComparisonDocument:
        """The document of `labelmill compare --json`, from the ids of evaluations; `margin`: the loss of accuracy that
        would be accepted, as a share of rows. Raises NotFound, InvalidInput."""
        from labelmill.services.comparison import ComparisonRequest, comparison  # noqa: PLC0415 - NumPy, often spared

        return comparison(self.context, ComparisonRequest(evaluations, level, margin))

    def models(self, *, archived: bool = False) -> list[ModelEntry]:
        """All models, by name and version; with `archived` also archived ones."""
        return registry.list_models(self.context, registry.ModelsRequest(archived))

    def datasets(self, limit: int = 100) -> list[DatasetEntry]:
        """The latest datasets, newest first."""
        return datasets.list_datasets(self.context, datasets.DatasetsRequest(limit))

    def job(self, job_id: str) -> Job[JobDocument]:
        """A handle on any job, by id."""
        return Job(self, job_id)

    def status(self, job_id: str) -> JobDocument:
        """The status document of any job; a dataset's files as paths in this client's data folder. Raises NotFound."""
        return job_status(self.context, JobRequest(job_id))

    def jobs(
        self,
        kind: str | None = None,
        state: str | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int = 20,
        after: str | None = None,
        *,
        inner: bool = False,
    ) -> list[JobEntry]:
        """The latest jobs, newest first, those that are older than the job `after`, and have all of `metadata`.
        `inner`: the batches that trainings and evaluations run for themselves too. Raises InvalidInput, NotFound."""
        return list_jobs(self.context, JobsRequest(kind, state, limit, after, inner, metadata or {}))

    def spend(self, by: str = "month", *, since: str | None = None, until: str | None = None) -> SpendDocument:
        """What was spent, by `job`, `model`, `day` or `month`, on the days from `since` to `until` in UTC. Raises
        InvalidInput."""
        return spending.spend(self.context, spending.SpendRequest(by, since, until))

    def results(self, job_id: str, *, only: Only | None = None, follow: bool = False) -> Iterator[dict[str, Any]]:
        """The answered rows of a batch or an evaluation in input order; with `follow` until it ends, retrying during
        outages of the database. Raises NotFound, DatabaseUnavailable."""
        return result_rows(self.context, ResultsRequest(job_id, only, follow))

    def cancel(self, job_id: str) -> None:
        """Stop a job; what was paid for is kept. Raises NotFound, InvalidInput when it has ended."""
        actions.cancel(self.context, JobRequest(job_id))

    def retry(self, job_id: str) -> None:
        """Run the failed rows of a batch again. Raises NotFound, InvalidInput."""
        self._keep(actions.retry(self.context, JobRequest(job_id)).warnings)

    def approve(self, training_id: str) -> None:
        """Approve the cost of a training. Raises NotFound, InvalidInput when it does not wait for approval."""
        self._keep(trainings.approve(self.context, JobRequest(training_id)).warnings)

    def _start(self, accepted: Accepted) -> tuple[str, ...]:
        return self._keep(start(self.context, accepted).warnings)

    def _keep(self, warnings: Iterable[Notice]) -> tuple[str, ...]:
        messages = tuple(warning.message for warning in warnings)
        self.warnings += messages
        return messages


class Job(Generic[D]):
    """A submitted job. `warnings`: those of its submission."""

    def __init__(self, client: Client, job_id: str, warnings: tuple[str, ...] = ()) -> None:
        self.client = client
        self.id = job_id
        self.warnings = warnings

    def status(self) -> D:
        """Its status document, as `labelmill status --json` prints it."""
        return cast("D", self.client.status(self.id))

    def wait(self, timeout_s: float | None = None, poll_s: float = 0.5) -> D:
        """Poll until it ends or waits for approval. Returns the last status document.

        While the database is away it looks on for a quarter of an hour, which the client's `warnings` tell. Raises
        TimeoutError, DatabaseUnavailable.
        """
        ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        lost = LostReads(self.id, self.client.warnings.append)
        while (document := lost.read(self.status, until=ends_at))["state"] not in RESTING:
            if ends_at is not None and time.monotonic() >= ends_at:
                raise TimeoutError(f"{self.id} is still {document['state']} after {timeout_s:g} s")
            time.sleep(poll_s)
        return document

    def cancel(self) -> None:
        """Stop it."""
        self.client.cancel(self.id)


class Training(Job[TrainingDocument]):
    """A training."""

    def approve(self) -> None:
        """Approve its cost. Raises InvalidInput when it does not wait for approval."""
        self.client.approve(self.id)


class Batch(Job[BatchDocument]):
    """A bulk classification."""

    def results(self, *, only: Only | None = None, follow: bool = False) -> Iterator[dict[str, Any]]:
        """Its rows in input order."""
        return self.client.results(self.id, only=only, follow=follow)

    def retry(self) -> None:
        """Run its failed rows again."""
        self.client.retry(self.id)
