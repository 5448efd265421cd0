"""What both Python clients can do, except for calls that take a source: a thin translation to the services. Calls about
models are in `registry_calls`.

A call imports the services that it needs, so that a program that asks for a status loads nothing that submits.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from labelmill.contracts.argument_types import check_arguments, plain_number
from labelmill.contracts.bounds import shown
from labelmill.contracts.documents.comparison import ComparisonDocument
from labelmill.contracts.documents.datasets import DatasetEntry
from labelmill.contracts.documents.jobs import JobDocument, JobEntry
from labelmill.contracts.documents.money import SpendDocument
from labelmill.contracts.documents.results import ResultRow
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named
from labelmill.core.settings import Settings, load_settings
from labelmill.handles import Batch, Evaluation, Job, Rows, Training, handle_of
from labelmill.registry_calls import RegistryCalls

if TYPE_CHECKING:
    from labelmill.contracts.field_names import Notice
    from labelmill.services.context import ServiceContext
    from labelmill.services.jobs.waiting import OnProgress, Waiting
    from labelmill.services.results.reading import OnlyName
    from labelmill.services.submissions.accepted import Accepted


Watching = Generator[JobEntry | float, None, None]  #: Entries of a job, and the seconds to pause before the next step.


class Waitable(Protocol):
    """A handle on a job, of either client."""

    id: str
    warnings: tuple[str, ...]


class Calls(RegistryCalls):
    """The calls of both clients. Use `Client` or `AsyncClient`."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        broker_url: str | None = None,
        database_url: str | None = None,
        data_dir: str | None = None,
    ) -> None:
        from labelmill.services.current_context import CurrentContext

        addresses = {"broker_url": broker_url, "database_url": database_url, "data_dir": data_dir}
        self._current = (
            CurrentContext.of_running_stack(load_settings(**addresses))
            if settings is None
            else CurrentContext(settings)
        )

    @property
    def settings(self) -> Settings:
        """The settings, with the addresses in use."""
        return self._current.settings

    @property
    def context(self) -> ServiceContext:
        """The connections for the next call: to the `labelmill up` that runs now, where none were named."""
        return self._current.now()

    @context.setter
    def context(self, context: ServiceContext) -> None:
        self._current.use(context)

    def close(self) -> None:
        """Close the connections to the database and to Redis. Jobs go on."""
        self._current.close()

    def train(
        self,
        name: str,
        dataset: str,
        *,
        method: str = "embedding",
        max_cost: float | None = None,
        yes: bool = False,
        mode: str | None = None,
        base_model: str | None = None,
        steps: int | None = None,
        learning_rate: float | None = None,
        wandb_project: str | None = None,
        suffix: str | None = None,
        target_weights: Mapping[str, float] | None = None,
        descriptions: Mapping[str, str] | None = None,
        shots: int | None = None,
        shot_selection: str | None = None,
        texts_per_prompt: int | str | None = None,
        candidates: int | None = None,
        optimize: str | None = None,
        target_precision: Mapping[str, float] | None = None,
        idempotency_key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Training:
        """Submit a training of a new version of model `name`. It waits for `approve` if it would cost more than
        `max_cost`, or anything at all where there is neither `max_cost` nor `yes`. Raises NotFound, InvalidInput,
        KeyTaken.

        `mode`: `realtime` or `batch`, of its requests. `optimize`: what multi-label thresholds are tuned for, `micro`,
        `macro` or `precision`. `target_precision`: target, TARGET.LABEL or `*` for all → the precision that is to be
        certified. `texts_per_prompt`: a number, or `auto`. `candidates`: how many labels of a target a prompt names,
        those nearest to its text; None: all.

        >>> training = client.train("calls", "calls", max_cost=0.5, idempotency_key="calls in November")
        >>> training.wait()["model"]
        'calls@1'
        >>> client.train("calls", "calls", max_cost=0.5, idempotency_key="calls in November").id == training.id
        True
        """
        check_arguments(Calls.train, locals())
        from labelmill.services.trainings import TrainRequest, accept_training

        request = TrainRequest.of(
            name,
            dataset,
            method=method,
            max_cost=plain_number(max_cost),
            yes=yes,
            mode=mode,
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
            candidates=candidates,
            optimize=optimize,
            target_precision=target_precision,
            idempotency_key=idempotency_key,
            metadata=metadata,
        )
        accepted = accept_training(self.context, request)
        return Training(self, accepted.id, self._start(accepted))

    def evaluate(
        self,
        model: str,
        dataset: str,
        split: str = "test",
        *,
        calibrate: bool = False,
        mode: str = "realtime",
        idempotency_key: str | None = None,
        metadata: Mapping[str, str] | None = None,
        max_cost: float | None = None,
    ) -> Evaluation:
        """Measure a model on a split of a dataset. `mode`: `realtime` or `batch`. Raises InvalidInput, NotFound,
        KeyTaken.

        >>> metrics = client.evaluate("requests", "requests").wait()["metrics"]
        >>> sorted(metrics)
        ['intent']
        """
        check_arguments(Calls.evaluate, locals())
        from labelmill.services.evaluations import EvaluateRequest, accept_evaluation

        cap = plain_number(max_cost)
        request = EvaluateRequest(model, dataset, split, calibrate, mode, idempotency_key, metadata or {}, cap)
        accepted = accept_evaluation(self.context, request)
        return Evaluation(self, accepted.id, self._start(accepted))

    def compare(
        self,
        models: Sequence[str],
        dataset: str,
        split: str = "test",
        *,
        idempotency_key: str | None = None,
        metadata: Mapping[str, str] | None = None,
        max_cost: float | None = None,
    ) -> list[Evaluation]:
        """One evaluation of each model on the same rows: an existing one, or a new one. When they have ended,
        `comparison` compares them. `metadata` and `max_cost` are those of each new one. Raises InvalidInput, NotFound,
        KeyTaken, before anything is paid for."""
        check_arguments(Calls.compare, locals())
        from labelmill.services.evaluations import CompareRequest, accept_comparison

        request = CompareRequest(models, dataset, split, idempotency_key, metadata or {}, plain_number(max_cost))
        comparison = accept_comparison(self.context, request)
        warnings = {accepted.id: self._start(accepted) for accepted in comparison.accepted}
        return [Evaluation(self, job_id, warnings.get(job_id, ())) for job_id in comparison.evaluations]

    def comparison(
        self, evaluations: Sequence[str], level: float = 0.05, margin: float | None = None
    ) -> ComparisonDocument:
        """The document of `labelmill compare --json`, from the ids of evaluations; `margin`: the loss of accuracy that
        would be accepted, as a share of rows. Raises NotFound, InvalidInput."""
        check_arguments(Calls.comparison, locals())
        from labelmill.services.comparison import ComparisonRequest, comparison

        return comparison(self.context, ComparisonRequest(evaluations, level, margin))

    def datasets(self, limit: int = 100) -> list[DatasetEntry]:
        """The latest datasets, newest first. Raises InvalidInput."""
        check_arguments(Calls.datasets, locals())
        from labelmill.services.datasets import DatasetsRequest, list_datasets

        return list_datasets(self.context, DatasetsRequest(limit))

    def job(self, job_id: str) -> Job[JobDocument]:
        """A handle on any job, by id: a `Training`, `Batch`, `Evaluation` or `Preparation`. Asks for nothing yet."""
        check_arguments(Calls.job, locals())
        return handle_of(self, job_id)

    def status(self, job_id: str) -> JobDocument:
        """The status document of any job; a dataset's files as paths in this client's data folder. Raises NotFound."""
        check_arguments(Calls.status, locals())
        from labelmill.services.jobs.documents import job_status
        from labelmill.services.jobs.requests import JobRequest

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
        `inner`: the batches that trainings and evaluations run for themselves too. Raises InvalidInput, NotFound.

        >>> [job["metadata"] for job in client.jobs("batch", metadata={"team": "search"}, limit=1)]
        [{'team': 'search'}]
        """
        check_arguments(Calls.jobs, locals())
        from labelmill.services.jobs.listing import JobsRequest, list_jobs

        return list_jobs(self.context, JobsRequest(kind, state, limit, after, inner, metadata or {}))

    def spend(self, by: str = "month", *, since: str | None = None, until: str | None = None) -> SpendDocument:
        """What was spent, by `job`, `model`, `day` or `month`, on the days from `since` to `until` in UTC. Raises
        InvalidInput."""
        check_arguments(Calls.spend, locals())
        from labelmill.services.spending import SpendRequest, spend

        return spend(self.context, SpendRequest(by, since, until))

    def wait(
        self,
        jobs: Iterable[Waitable | str],
        timeout_s: float | None = None,
        *,
        on_progress: OnProgress | None = None,
    ) -> list[JobDocument]:
        """Wait until all of these jobs, handles or ids, have ended or wait for approval: as `Job.wait`, but however
        many jobs there are, one query asks for the states of all. Returns their last status documents, in their order.
        Raises NotFound, TimeoutError, DatabaseUnavailable.

        >>> batches = [client.classify([text], "requests") for text in ("wake me at six", "will it rain")]
        >>> [document["state"] for document in client.wait(batches)]
        ['completed', 'completed']
        """
        steps = self._waiting(jobs, timeout_s, on_progress=on_progress)
        while True:
            try:
                time.sleep(next(steps))
            except StopIteration as end:
                documents: list[JobDocument] = end.value
                return documents

    def _waiting(
        self,
        jobs: Iterable[Waitable | str],
        timeout_s: float | None = None,
        *,
        on_progress: OnProgress | None = None,
    ) -> Waiting:
        """Wait until all of these jobs, handles or ids, have ended or wait for approval, as `Client.wait`."""
        check_arguments(Calls._waiting, locals())
        from labelmill.notebook import also_in_notebook
        from labelmill.services.jobs.waiting import waiting_for_jobs

        given = list(jobs)
        ids = [_id_of(job, "jobs") for job in given]
        handles = [job for job in given if not isinstance(job, str)]

        def warn(message: str) -> None:
            for handle in handles:
                handle.warnings += (message,)

        return waiting_for_jobs(
            self.context,
            ids,
            timeout_s=timeout_s,
            on_progress=also_in_notebook(on_progress),
            say=warn,
        )

    def watch(self, job: Waitable | str, timeout_s: float | None = None) -> Iterator[JobEntry]:
        """Follow a job, a handle or an id, until it ends or waits for approval: its entry, as `jobs` has it, at first
        and whenever it has changed. Through outages of the database as `wait`. Raises NotFound at the first entry,
        TimeoutError, DatabaseUnavailable.

        >>> [entry["state"] for entry in client.watch(batch)]
        ['completed']
        """
        for step in self._watching(job, timeout_s):
            if isinstance(step, float):
                time.sleep(step)
            else:
                yield step

    def _watching(self, job: Waitable | str, timeout_s: float | None = None) -> Watching:
        """Follow a job, a handle or an id, until it ends or waits for approval, as `Client.watch`."""
        check_arguments(Calls._watching, locals())
        _id_of(job, "job")
        entries: list[JobEntry] = []
        steps = self._waiting([job], timeout_s, on_progress=entries.append)
        while True:
            pause_s = next(steps, None)
            yield from entries
            entries.clear()
            if pause_s is None:
                return
            yield pause_s

    def report(self, job_id: str) -> str:
        """The page about a job that `labelmill report` writes: HTML that loads nothing. Raises NotFound, InvalidInput
        without Matplotlib.

        >>> client.report(batch.id)[:15]
        '<!DOCTYPE html>'
        """
        check_arguments(Calls.report, locals())
        from labelmill.report.gather import gather_report
        from labelmill.report.page import page_of
        from labelmill.services.jobs.requests import JobRequest

        return page_of(gather_report(self.context, JobRequest(job_id)))

    def results(
        self, job_id: str, *, only: OnlyName | None = None, follow: bool = False, scores: str = "all"
    ) -> Iterator[ResultRow]:
        """The rows of a batch or an evaluation that have an answer or an error, in input order, as `Batch.results`.
        Raises NotFound at the first one, DatabaseUnavailable."""
        check_arguments(Calls.results, locals())
        return rows_of(self, job_id).results(only=only, follow=follow, scores=scores)

    def _result_pieces(
        self, job_id: str, *, only: OnlyName | None = None, follow: bool = False, scores: str = "all"
    ) -> Iterator[list[ResultRow]]:
        """The rows of a batch or an evaluation that have an answer or an error, in input order, as `Batch.results`."""
        check_arguments(Calls._result_pieces, locals())
        return rows_of(self, job_id)._pieces(only=only, follow=follow, scores=scores)

    def cancel(self, job_id: str) -> None:
        """Stop a job; what was paid for is kept. Raises NotFound, InvalidInput when it has ended."""
        check_arguments(Calls.cancel, locals())
        from labelmill.services.jobs.actions import cancel
        from labelmill.services.jobs.requests import JobRequest

        cancel(self.context, JobRequest(job_id))

    def retry(self, job_id: str, max_cost: float | None = None) -> Job[JobDocument]:
        """Run the failed and unanswered rows of a batch again, or let a training or an evaluation go on that failed.
        `max_cost`, in USD, is of the whole job, with what was spent before; None: it stays as it is. Raises NotFound,
        InvalidInput."""
        check_arguments(Calls.retry, locals())
        from labelmill.services.jobs.requests import RetryRequest
        from labelmill.services.jobs.retrying import retry

        job = handle_of(self, job_id)
        job.warnings = messages_of(retry(self.context, RetryRequest(job_id, plain_number(max_cost))).warnings)
        return job

    def approve(self, training_id: str) -> Training:
        """Approve the cost of a training. Raises NotFound, InvalidInput when it does not wait for approval."""
        check_arguments(Calls.approve, locals())
        from labelmill.services.jobs.requests import JobRequest
        from labelmill.services.trainings import approve

        return Training(self, training_id, messages_of(approve(self.context, JobRequest(training_id)).warnings))

    def _start(self, accepted: Accepted) -> tuple[str, ...]:
        from labelmill.services.submissions.accepted import start

        return messages_of(start(self.context, accepted).warnings)


def rows_of(client: Calls, job_id: str) -> Rows:
    """The rows of a job of any kind; those that classify nothing have none."""
    return Batch(client, job_id)


def messages_of(warnings: Iterable[Notice]) -> tuple[str, ...]:
    """Warnings as a program reads them."""
    return tuple(warning.message for warning in warnings)


def _id_of(job: Waitable | str, field: str) -> str:
    """The id of what a program hands over as a job. Raises InvalidInput."""
    job_id = job if isinstance(job, str) else getattr(job, "id", None)
    if not isinstance(job_id, str):
        raise InvalidInput(f"{named(field)} takes jobs or their ids, not {shown(repr(job))}", field=field)
    return job_id
