"""The Python client for programs that are not asynchronous."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from labelmill.calls import Calls
from labelmill.contracts.argument_types import check_arguments, plain_number
from labelmill.contracts.sources import Source
from labelmill.handles import Batch, Preparation

S = TypeVar("S")


class Submitting(Calls, Generic[S]):
    """The calls that take a source: `S` is what a client takes for one. Use `Client` or `AsyncClient`."""

    def prepare(
        self,
        name: str,
        source: S,
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
    ) -> Preparation:
        """Submit the preparation of `source` as dataset `name`: a path, a glob, `hf:…`, mappings, or a table; rows that
        do not come from a file are written into the data folder. `targets` are `NAME=COLUMN[:multi]`, `where` is
        `COLUMN=VALUE`. Raises InvalidInput, KeyTaken, Permanent when the data folder cannot be written.

        >>> rows = [{"text": f"{verb} me at {hour}", "label": verb} for verb in ("wake", "call") for hour in range(20)]
        >>> client.prepare("calls", rows, targets=["intent=label"]).wait()["splits"]
        {'train': 32, 'validation': 4, 'test': 4}
        """
        check_arguments(Submitting.prepare, locals())
        from labelmill.core.readers import given_source
        from labelmill.services.datasets import PrepareRequest, accept_preparation

        request = PrepareRequest.of(
            name,
            given_source(source),
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
        accepted = accept_preparation(self.context, request)
        return Preparation(self, accepted.id, self._start(accepted))

    def classify(
        self,
        source: S,
        model: str,
        *,
        text: str = "text",
        id_column: str | None = None,
        mode: str = "realtime",
        deadline: str | None = None,
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
        max_cost: float | None = None,
    ) -> Batch:
        """Submit a batch: every text of `source`, a path, a glob or `-`, texts, mappings, or a table. Rows are read
        once and stored as they come, at constant memory. `thresholds`: target (or `*` for all) → the minimum of the
        best score; below it a row abstains. `mode`: `realtime`, `batch`, or `auto` with a `deadline` such as `90m`,
        `2h` or `1d`. `max_cost`, in USD: the batch pauses before it may cost more. Raises InvalidInput, NotFound,
        KeyTaken.

        >>> batch = client.classify(["wake me at six", "will it rain"], "requests", metadata={"team": "search"})
        >>> batch.wait()["rows"]["labelled"]
        2
        """
        check_arguments(Submitting.classify, locals())
        from labelmill.core.readers import given_source
        from labelmill.services.batches import ClassifyRequest, accept_batch

        request = ClassifyRequest.of(
            given_source(source),
            model,
            text=text,
            id_column=id_column,
            mode=mode,
            deadline=deadline,
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
            max_cost=plain_number(max_cost),
        )
        accepted = accept_batch(self.context, request)
        return Batch(self, accepted.id, self._start(accepted))


class Client(Submitting[Source]):
    """A connection to a Labelmill installation. Close it, or use it as a context manager.

    Addresses that are not given come from the environment, `.env`, or a running `labelmill up`. Raises InvalidInput,
    DatabaseUnavailable, DatabaseOutdated, DatabaseUnsuitable.

    >>> with Client(database_url=database_url) as mine:
    ...     mine.jobs(state="running")
    []
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
