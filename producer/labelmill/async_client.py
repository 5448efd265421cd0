"""The Python client for asyncio: the same calls as `Client`, each in a thread, so that the event loop goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import orjson

from labelmill.client import Batch, Client, Job, Training
from labelmill.contracts.documents.jobs import BatchDocument, EvaluationDocument, JobDocument, TrainingDocument
from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.contracts.job_kinds import RESTING
from labelmill.core.settings import Settings
from labelmill.services.jobs.lost_reads import LostReads
from labelmill.services.results.reading import Only
from labelmill.services.results.rows import ResultsRequest, result_lines

P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D", bound=JobDocument)


def _in_thread(call: Callable[Concatenate[Client, P], R]) -> Callable[Concatenate[AsyncClient, P], Awaitable[R]]:
    """A method of `Client`, awaited."""

    async def awaited(self: AsyncClient, /, *arguments: P.args, **options: P.kwargs) -> R:
        return await asyncio.to_thread(call, self.client, *arguments, **options)

    awaited.__doc__ = call.__doc__
    return awaited


def _job(
    call: Callable[Concatenate[Client, P], Job[D]],
) -> Callable[Concatenate[AsyncClient, P], Awaitable[AsyncJob[D]]]:
    """A method of `Client` that submits a job, awaited."""

    async def awaited(self: AsyncClient, /, *arguments: P.args, **options: P.kwargs) -> AsyncJob[D]:
        return AsyncJob(await asyncio.to_thread(call, self.client, *arguments, **options))

    awaited.__doc__ = call.__doc__
    return awaited


def _training(
    call: Callable[Concatenate[Client, P], Training],
) -> Callable[Concatenate[AsyncClient, P], Awaitable[AsyncTraining]]:
    async def awaited(self: AsyncClient, /, *arguments: P.args, **options: P.kwargs) -> AsyncTraining:
        return AsyncTraining(await asyncio.to_thread(call, self.client, *arguments, **options))

    awaited.__doc__ = call.__doc__
    return awaited


def _batch(
    call: Callable[Concatenate[Client, P], Batch],
) -> Callable[Concatenate[AsyncClient, P], Awaitable[AsyncBatch]]:
    async def awaited(self: AsyncClient, /, *arguments: P.args, **options: P.kwargs) -> AsyncBatch:
        return AsyncBatch(await asyncio.to_thread(call, self.client, *arguments, **options))

    awaited.__doc__ = call.__doc__
    return awaited


class AsyncClient:
    """A connection to a Labelmill installation. `await AsyncClient.connect()` it; close it, or use `async with`."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @classmethod
    async def connect(cls, settings: Settings | None = None) -> Self:
        """Raises DatabaseUnavailable, DatabaseOutdated, DatabaseUnsuitable."""
        return cls(await asyncio.to_thread(Client, settings))

    async def close(self) -> None:
        """Close the connections to the database and to Redis. Jobs go on."""
        await asyncio.to_thread(self.client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def warnings(self) -> list[str]:
        """Warnings of the calls so far."""
        return self.client.warnings

    prepare = _job(Client.prepare)
    train = _training(Client.train)
    classify = _batch(Client.classify)
    evaluate = _job(Client.evaluate)
    comparison = _in_thread(Client.comparison)
    models = _in_thread(Client.models)
    datasets = _in_thread(Client.datasets)
    jobs = _in_thread(Client.jobs)
    spend = _in_thread(Client.spend)
    status = _in_thread(Client.status)
    cancel = _in_thread(Client.cancel)
    retry = _in_thread(Client.retry)
    approve = _in_thread(Client.approve)

    def job(self, job_id: str) -> AsyncJob[JobDocument]:
        """A handle on any job, by id."""
        return AsyncJob(self.client.job(job_id))

    async def compare(
        self, models: Sequence[str], dataset: str, split: str = "test"
    ) -> list[AsyncJob[EvaluationDocument]]:
        """One evaluation of each model on the same rows, as `Client.compare`."""
        return [AsyncJob(job) for job in await asyncio.to_thread(self.client.compare, models, dataset, split)]

    def results(self, job_id: str, *, only: Only | None = None, follow: bool = False) -> AsyncIterator[dict[str, Any]]:
        """The rows of a batch or an evaluation in input order."""
        return _rows(self.client, job_id, only=only, follow=follow)


class AsyncJob(Generic[D]):
    """A submitted job."""

    def __init__(self, job: Job[D]) -> None:
        self._job = job
        self.id, self.warnings = job.id, job.warnings

    async def status(self) -> D:
        """Its status document."""
        return await asyncio.to_thread(self._job.status)

    async def wait(self, timeout_s: float | None = None, poll_s: float = 0.5) -> D:
        """Poll until it ends or waits for approval, as `Job.wait`. No thread waits meanwhile. Raises TimeoutError,
        DatabaseUnavailable."""
        clock = asyncio.get_running_loop().time
        ends_at = None if timeout_s is None else clock() + timeout_s
        pauses: list[float] = []
        lost = LostReads(self.id, self._job.client.warnings.append, sleep=pauses.append)
        while True:
            try:
                document = await self.status()
            except DatabaseUnavailable as error:
                if ends_at is not None and clock() >= ends_at:
                    raise
                lost.wait_after(error)
                await asyncio.sleep(pauses.pop())
                continue
            lost.succeeded()
            if document["state"] in RESTING:
                return document
            if ends_at is not None and clock() >= ends_at:
                raise TimeoutError(f"{self.id} is still {document['state']} after {timeout_s:g} s")
            await asyncio.sleep(poll_s)

    async def cancel(self) -> None:
        """Stop it."""
        await asyncio.to_thread(self._job.cancel)


class AsyncTraining(AsyncJob[TrainingDocument]):
    """A training."""

    async def approve(self) -> None:
        """Approve its cost. Raises InvalidInput when it does not wait for approval."""
        await asyncio.to_thread(self._job.client.approve, self.id)


class AsyncBatch(AsyncJob[BatchDocument]):
    """A bulk classification."""

    def results(self, *, only: Only | None = None, follow: bool = False) -> AsyncIterator[dict[str, Any]]:
        """Its rows in input order."""
        return _rows(self._job.client, self.id, only=only, follow=follow)

    async def retry(self) -> None:
        """Run its failed rows again."""
        await asyncio.to_thread(self._job.client.retry, self.id)


async def _rows(client: Client, job_id: str, *, only: Only | None, follow: bool) -> AsyncIterator[dict[str, Any]]:
    lines = result_lines(client.context, ResultsRequest(job_id, only, follow))
    try:
        while (piece := await asyncio.to_thread(next, lines, None)) is not None:
            for line in piece.splitlines():
                yield orjson.loads(line)
    finally:
        with contextlib.suppress(ValueError):  # a thread still reads for a caller that was cancelled
            await asyncio.to_thread(lines.close)
