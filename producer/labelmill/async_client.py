"""The Python client for asyncio: the calls of `Client`, each in a thread, so that the event loop goes on.

Every method is made of the one of `Calls`, or of a handle: its name, its parameters and its types are written once.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from types import TracebackType
from typing import Concatenate, Generic, ParamSpec, Self, TypeVar, cast

from labelmill.async_results import OwnThread, pieces_of
from labelmill.async_sources import AsynchronousRows, in_own_thread
from labelmill.calls import Watching, rows_of
from labelmill.client import Client, Submitting
from labelmill.contracts.documents.jobs import (
    BatchDocument,
    DatasetDocument,
    EvaluationDocument,
    JobDocument,
    JobEntry,
    TrainingDocument,
)
from labelmill.contracts.ids import Kind, kind_of
from labelmill.contracts.sources import AsyncSource
from labelmill.core.settings import Settings
from labelmill.core.stopping import has_stopped
from labelmill.handles import Batch, Evaluation, Job, Preparation, Rows, Training
from labelmill.services.jobs.waiting import OnProgress, Waiting

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
D_co = TypeVar("D_co", bound=JobDocument, covariant=True)

Awaited = Coroutine[object, None, R]
_Given = Submitting[AsyncSource]  #: The calls, with the sources that they take here.


def _awaited(call: Callable[Concatenate[_Given, P], R]) -> Callable[Concatenate[AsyncClient, P], Awaited[R]]:
    """A call, awaited."""

    async def awaited(self: AsyncClient, /, *arguments: P.args, **options: P.kwargs) -> R:
        return await self._run(call, *arguments, **options)

    return _named(awaited, call)


def _preparation(
    call: Callable[Concatenate[_Given, P], Preparation],
) -> Callable[Concatenate[AsyncClient, P], Awaited[AsyncPreparation]]:
    async def submitted(self: AsyncClient, /, *arguments: P.args, **options: P.kwargs) -> AsyncPreparation:
        job = await self._run(call, *arguments, **options)
        return AsyncPreparation(self, job.id, job.warnings)

    return _named(submitted, call)


def _training(
    call: Callable[Concatenate[_Given, P], Training],
) -> Callable[Concatenate[AsyncClient, P], Awaited[AsyncTraining]]:
    async def submitted(self: AsyncClient, /, *arguments: P.args, **options: P.kwargs) -> AsyncTraining:
        job = await self._run(call, *arguments, **options)
        return AsyncTraining(self, job.id, job.warnings)

    return _named(submitted, call)


def _batch(
    call: Callable[Concatenate[_Given, P], Batch],
) -> Callable[Concatenate[AsyncClient, P], Awaited[AsyncBatch]]:
    async def submitted(self: AsyncClient, /, *arguments: P.args, **options: P.kwargs) -> AsyncBatch:
        job = await self._run(call, *arguments, **options)
        return AsyncBatch(self, job.id, job.warnings)

    return _named(submitted, call)


def _evaluation(
    call: Callable[Concatenate[_Given, P], Evaluation],
) -> Callable[Concatenate[AsyncClient, P], Awaited[AsyncEvaluation]]:
    async def submitted(self: AsyncClient, /, *arguments: P.args, **options: P.kwargs) -> AsyncEvaluation:
        job = await self._run(call, *arguments, **options)
        return AsyncEvaluation(self, job.id, job.warnings)

    return _named(submitted, call)


def _evaluations(
    call: Callable[Concatenate[_Given, P], list[Evaluation]],
) -> Callable[Concatenate[AsyncClient, P], Awaited[list[AsyncEvaluation]]]:
    async def submitted(self: AsyncClient, /, *arguments: P.args, **options: P.kwargs) -> list[AsyncEvaluation]:
        jobs = await self._run(call, *arguments, **options)
        return [AsyncEvaluation(self, job.id, job.warnings) for job in jobs]

    return _named(submitted, call)


def _job(
    call: Callable[Concatenate[_Given, P], Job[JobDocument]],
) -> Callable[Concatenate[AsyncClient, P], Awaited[AsyncJob[JobDocument]]]:
    async def submitted(self: AsyncClient, /, *arguments: P.args, **options: P.kwargs) -> AsyncJob[JobDocument]:
        job = await self._run(call, *arguments, **options)
        made = self.job(job.id)
        made.warnings = job.warnings
        return made

    return _named(submitted, call)


def _waited(
    call: Callable[Concatenate[_Given, P], Waiting],
) -> Callable[Concatenate[AsyncClient, P], Awaited[list[JobDocument]]]:
    """A wait, of which each step is made in a thread; between the steps no thread waits."""

    async def waited(self: AsyncClient, /, *arguments: P.args, **options: P.kwargs) -> list[JobDocument]:
        on_progress = cast("OnProgress | None", options.get("on_progress"))
        told: list[JobEntry] = []
        if on_progress is not None:
            options["on_progress"] = told.append
        steps = call(cast("_Given", await self.opened()), *arguments, **options)
        while True:
            step = await asyncio.to_thread(_step, steps)
            for job in told if on_progress is not None else ():
                cast("OnProgress", on_progress)(job)  # in the loop, as the caller's other code
            told.clear()
            if isinstance(step, list):
                return step
            await asyncio.sleep(step)

    return _named(waited, call)


def _watched(
    call: Callable[Concatenate[_Given, P], Watching],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[JobEntry]]:
    """The entries of a job, of which each is read in a thread; between them no thread waits."""

    async def watched(self: AsyncClient, /, *arguments: P.args, **options: P.kwargs) -> AsyncIterator[JobEntry]:
        steps = call(cast("_Given", await self.opened()), *arguments, **options)
        while (step := await asyncio.to_thread(next, steps, None)) is not None:
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                yield step

    return _named(watched, call)


def _step(steps: Waiting) -> float | list[JobDocument]:
    """The seconds to pause before the next step, or the result."""
    try:
        return next(steps)
    except StopIteration as end:
        return cast("list[JobDocument]", end.value)


def _flattened(
    call: Callable[Concatenate[_Given, P], Iterator[list[R]]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[R]]:
    """A call that gives pieces of rows, as an asynchronous iterator of rows."""

    async def rows(self: AsyncClient, /, *arguments: P.args, **options: P.kwargs) -> AsyncIterator[R]:
        given = cast("_Given", await self.opened())
        async with contextlib.aclosing(pieces_of(lambda: call(given, *arguments, **options))) as pieces:
            async for piece in pieces:
                for row in piece:
                    yield row

    return _named(rows, call)


def _rows_flattened(
    call: Callable[Concatenate[Rows, P], Iterator[list[R]]],
) -> Callable[Concatenate[AsyncRows, P], AsyncIterator[R]]:
    async def rows(self: AsyncRows, /, *arguments: P.args, **options: P.kwargs) -> AsyncIterator[R]:
        given = rows_of(await self.client.opened(), self.id)
        async with contextlib.aclosing(pieces_of(lambda: call(given, *arguments, **options))) as pieces:
            async for piece in pieces:
                for row in piece:
                    yield row

    return _named(rows, call)


def _rows_streamed(
    call: Callable[Concatenate[Rows, P], Iterator[R]],
) -> Callable[Concatenate[AsyncRows, P], AsyncIterator[R]]:
    async def batches(self: AsyncRows, /, *arguments: P.args, **options: P.kwargs) -> AsyncIterator[R]:
        given = rows_of(await self.client.opened(), self.id)
        async with contextlib.aclosing(pieces_of(lambda: call(given, *arguments, **options))) as pieces:
            async for piece in pieces:
                yield piece

    return _named(batches, call)


def _rows_awaited(call: Callable[Concatenate[Rows, P], R]) -> Callable[Concatenate[AsyncRows, P], Awaited[R]]:
    async def awaited(self: AsyncRows, /, *arguments: P.args, **options: P.kwargs) -> R:
        given = rows_of(await self.client.opened(), self.id)
        async with OwnThread() as thread:
            return await thread.run(lambda: call(given, *arguments, **options))

    return _named(awaited, call)


def _named(made: T, call: Callable[..., object]) -> T:
    """The same function, with the name, the documentation and the signature of the call that it is made of."""
    return cast("T", functools.wraps(call)(cast("Callable[..., object]", made)))


class AsyncClient:
    """A connection to a Labelmill installation, for asyncio. Close it, or use `async with`, which opens it; otherwise
    the first call does. Several loops may use it.

    Addresses that are not given come from the environment, `.env`, or a running `labelmill up`.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        broker_url: str | None = None,
        database_url: str | None = None,
        data_dir: str | None = None,
    ) -> None:
        self._open: Callable[[], Client] = lambda: Client(
            settings, broker_url=broker_url, database_url=database_url, data_dir=data_dir
        )
        self._client: Client | None = None
        self._opening = threading.Lock()  # of threads: each may run a loop of its own

    @classmethod
    def of(cls, client: Client) -> Self:
        """The same calls as an open client's."""
        made = cls(client.settings)
        made._client = client
        return made

    @classmethod
    async def connect(cls, settings: Settings | None = None) -> Self:
        """An open client. Raises DatabaseUnavailable, DatabaseOutdated, DatabaseUnsuitable."""
        made = cls(settings)
        await made.opened()
        return made

    async def opened(self) -> Client:
        """The client whose calls are made. Raises DatabaseUnavailable, DatabaseOutdated, DatabaseUnsuitable."""
        client = self._client
        return await asyncio.to_thread(self._opened) if client is None else client

    def _opened(self) -> Client:
        with self._opening:
            if self._client is None:
                self._client = self._open()
            return self._client

    async def close(self) -> None:
        """Close the connections to the database and to Redis. Jobs go on."""
        if self._client is not None:
            await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> Self:
        await self.opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, call: Callable[Concatenate[_Given, P], R], /, *arguments: P.args, **options: P.kwargs) -> R:
        """Make the call in a thread: one of its own where it reads an iterator, which may wait for whatever it likes.
        Asynchronous iterables among its arguments are read in this loop meanwhile. A submission whose caller is
        cancelled ends before its job can start."""
        client = cast("_Given", await self.opened())
        sources: list[AsynchronousRows] = []

        def bridged(value: object) -> object:
            if not isinstance(value, AsyncIterable) or isinstance(value, Iterable):
                return value
            sources.append(AsynchronousRows(value, asyncio.get_running_loop()))
            return sources[-1]

        positional = map(bridged, arguments)
        named = {name: bridged(value) for name, value in options.items()}
        is_stopped, context = threading.Event(), contextvars.copy_context()
        context.run(has_stopped.set, is_stopped.is_set)
        made = functools.partial(context.run, cast("Callable[..., R]", call), client, *positional, **named)
        try:
            if sources or any(isinstance(value, Iterator) for value in (*arguments, *options.values())):
                return await in_own_thread(made, sources)
            return await asyncio.get_running_loop().run_in_executor(None, made)
        finally:
            is_stopped.set()

    prepare = _preparation(_Given.prepare)
    train = _training(_Given.train)
    classify = _batch(_Given.classify)
    evaluate = _evaluation(_Given.evaluate)
    compare = _evaluations(_Given.compare)
    comparison = _awaited(_Given.comparison)
    models = _awaited(_Given.models)
    model = _awaited(_Given.model)
    promote = _awaited(_Given.promote)
    rollback = _awaited(_Given.rollback)
    register = _awaited(_Given.register)
    alias = _awaited(_Given.alias)
    remove_alias = _awaited(_Given.remove_alias)
    note = _awaited(_Given.note)
    threshold = _awaited(_Given.threshold)
    clear_thresholds = _awaited(_Given.clear_thresholds)
    archive = _awaited(_Given.archive)
    delete = _awaited(_Given.delete)
    datasets = _awaited(_Given.datasets)
    jobs = _awaited(_Given.jobs)
    spend = _awaited(_Given.spend)
    status = _awaited(_Given.status)
    cancel = _awaited(_Given.cancel)
    retry = _job(_Given.retry)
    approve = _training(_Given.approve)
    report = _awaited(_Given.report)
    results = _flattened(_Given._result_pieces)
    watch = _watched(_Given._watching)

    wait = _waited(_Given._waiting)

    def job(self, job_id: str) -> AsyncJob[JobDocument]:
        """A handle on any job, by id, of the class for its kind. Asks for nothing yet."""
        kind = kind_of(job_id)
        return (AsyncJob if kind is None else _HANDLES[kind])(self, job_id)


class AsyncJob(Generic[D_co]):
    """A submitted job, as `Job`."""

    client: AsyncClient
    id: str
    warnings: tuple[str, ...]

    def __init__(self, client: AsyncClient, job_id: str, warnings: tuple[str, ...] = ()) -> None:
        self.client = client
        self.id = job_id
        self.warnings = warnings

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    async def status(self) -> D_co:
        """Its status document, as `Job.status`."""
        return cast("D_co", await self.client.status(self.id))

    async def wait(self, timeout_s: float | None = None, *, on_progress: OnProgress | None = None) -> D_co:
        """Wait until it ends or waits for approval, as `Job.wait`. No thread waits meanwhile."""
        (document,) = await self.client.wait([self], timeout_s, on_progress=on_progress)
        return cast("D_co", document)

    def watch(self, timeout_s: float | None = None) -> AsyncIterator[JobEntry]:
        """Follow it until it ends or waits for approval, as `Client.watch`."""
        return self.client.watch(self, timeout_s)

    async def report(self) -> str:
        """The page about it, as `Client.report`."""
        return await self.client.report(self.id)

    async def cancel(self) -> None:
        """Stop it, as `Job.cancel`."""
        await self.client.cancel(self.id)

    async def retry(self, max_cost: float | None = None) -> None:
        """Let it go on, as `Job.retry`."""
        self.warnings += (await self.client.retry(self.id, max_cost)).warnings


class AsyncTraining(AsyncJob[TrainingDocument]):
    """A training."""

    async def approve(self) -> None:
        """Approve its cost. Raises InvalidInput when it does not wait for approval."""
        self.warnings += (await self.client.approve(self.id)).warnings


class AsyncRows:
    """The rows of a job, as `Rows`."""

    client: AsyncClient
    id: str

    results = _rows_flattened(Rows._pieces)
    arrow = _rows_streamed(Rows.arrow)
    pandas = _rows_awaited(Rows.pandas)
    polars = _rows_awaited(Rows.polars)
    dataset = _rows_awaited(Rows.dataset)


class AsyncBatch(AsyncJob[BatchDocument], AsyncRows):
    """A bulk classification."""


class AsyncEvaluation(AsyncJob[EvaluationDocument], AsyncRows):
    """An evaluation of a model."""


class AsyncPreparation(AsyncJob[DatasetDocument]):
    """The preparation of a dataset."""


_HANDLES: dict[Kind, type[AsyncJob[JobDocument]]] = {
    Kind.DATASET: AsyncPreparation,
    Kind.TRAINING: AsyncTraining,
    Kind.BATCH: AsyncBatch,
    Kind.EVALUATION: AsyncEvaluation,
}
