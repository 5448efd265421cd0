"""Datasets: submitting a preparation (options are checked, files copied into the data folder, the job is written), and
listing datasets."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

from sqlalchemy import select
from sqlalchemy.engine import Connection, RowMapping

from labelmill.contracts.bounds import check_limit, check_plain_name, fault_of_targets, shown
from labelmill.contracts.documents.datasets import DatasetEntry
from labelmill.contracts.errors import InvalidInput, StorageRefused, StorageUnavailable
from labelmill.contracts.field_names import Notice, named
from labelmill.contracts.hub_reference import HUB, split_hub_reference
from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.specs import PrepareSpec, ReadOptions, TargetSpec, specify
from labelmill.contracts.states import DatasetState
from labelmill.core.database import reading
from labelmill.core.database.tables import DatasetRow
from labelmill.core.jobs.transitions import create_job
from labelmill.core.readers import (
    PythonRows,
    Source,
    check_columns,
    columns_named_by,
    detect_sources,
    first_columns,
    formats_of,
    inputs_of,
    read_options,
    refuse_file_options,
)
from labelmill.core.storage.references import source_folder
from labelmill.services.context import ServiceContext
from labelmill.services.submissions.accepted import Accepted
from labelmill.services.submissions.commits import accept_job
from labelmill.services.submissions.idempotency import accepted_before, check_identity, digest_of_request, keyed
from labelmill.services.submissions.source_copies import COPY_FORMAT, Copies, copy_into_storage, copy_rows_into_storage

_SEEDS = 2**32
_PERCENT_MIN, _PERCENT_MAX = 50, 200  #: Sums of parts that were probably meant as percent.


@dataclass(frozen=True)
class PrepareRequest:
    """The preparation of a dataset. `spec` as `of` makes it: the formats of files are not detected yet."""

    spec: PrepareSpec
    idempotency_key: str | None = None  #: The same key, request and rows are the same dataset.
    metadata: Mapping[str, str] = field(default_factory=dict)  #: Noted with the dataset.
    rows: PythonRows | None = None  #: Of a program; `spec.source` is their name then.

    @classmethod
    def of(
        cls,
        name: str,
        source: str | PythonRows,
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
    ) -> Self:
        """From what a person writes: `targets` are `NAME=COLUMN[:multi]`, `where` is `COLUMN=VALUE`. `encoding`,
        `delimiter` and `quoting` say how files are read; None: it is detected. Raises InvalidInput."""
        check_plain_name("dataset", name)
        rows: PythonRows | None = None
        if isinstance(source, PythonRows):
            rows, source = source, source.name
            refuse_file_options(encoding, delimiter, quoting)
        spec = specify(
            PrepareSpec,
            name=name,
            source=source,
            split=parse_split(split),
            targets=tuple(map(parse_target, targets)),
            where=tuple(map(parse_where, where)),
            reading=read_options(encoding, delimiter, quoting),
            text=text,
            min_per_label=min_per_label,
            max_per_label=max_per_label,
            seed=seed,
            dedupe=dedupe,
            separator=separator,
            on_bad_row=on_bad_row,
            format=format,
        )
        return cls(spec, idempotency_key, metadata or {}, rows)


def accept_preparation(context: ServiceContext, request: PrepareRequest) -> Accepted:
    """Write the job of a preparation; its source is copied into the data folder. Raises InvalidInput for wrong options
    and unreadable first rows of files, Permanent when the data folder cannot be written."""
    context.require_tables()
    spec = request.spec
    check_plain_name("dataset", spec.name)
    _check_options(spec)
    check_identity(request.idempotency_key, request.metadata)
    job_id, copies = new_id(Kind.DATASET), Copies()
    check_copy = partial(_check_first_rows, spec=spec)
    with columns_named_by(_fields_of_columns(spec)):
        if request.rows is not None:
            columns = None if spec.format == "factory" else _columns_of(spec)
            copies = copy_rows_into_storage(request.rows, columns, context.storage, job_id, check_copy)
            spec = spec.model_copy(update={"files": copies.references, "formats": (COPY_FORMAT,)})
        elif spec.source.startswith(HUB):
            if spec.reading != ReadOptions():
                raise InvalidInput(
                    f"{named('encoding')}, {named('delimiter')} and {named('quoting')} are for files, not for datasets "
                    "of the hub"
                )
            hub = spec.source.removeprefix(HUB)
            split_hub_reference(hub)
            spec = spec.model_copy(update={"hf": hub})
        else:
            sources = detect_sources(inputs_of(spec.source, context.remote), spec.reading, _columns_of(spec))
            copies = copy_into_storage(sources, context.storage, job_id, check_copy)
            spec = spec.model_copy(update={"files": copies.references, "formats": formats_of(sources)})
    try:
        accepted = _insert(context, request, job_id, spec, copies)
    except InvalidInput:
        _delete_copies(context, job_id)
        raise
    # after any other error the job may exist, and then it needs them; if it does not, `purge` deletes them
    if accepted.id != job_id:
        _delete_copies(context, job_id)
    return replace(accepted, warnings=(*accepted.warnings, *_warnings_of_split(spec.split)))


def _warnings_of_split(split: tuple[float, float, float]) -> tuple[Notice, ...]:
    """Parts are in proportion to each other, such as 8/1/1; those that look like percent may be a slip."""
    total = sum(split)
    if not _PERCENT_MIN <= total <= _PERCENT_MAX or math.isclose(total, 100):
        return ()
    shares = "/".join(f"{part / total:.0%}" for part in split)
    return (Notice(f"the parts of {named('split')} sum to {total:g}, not to 100: they are taken as {shares}"),)


def _delete_copies(context: ServiceContext, job_id: str) -> None:
    with contextlib.suppress(StorageUnavailable, StorageRefused):  # `purge` deletes them
        context.storage.delete(source_folder(job_id))


def parse_target(text: str) -> TargetSpec:
    """`NAME=COL[:multi]`. Raises InvalidInput."""
    name, equals, column = text.partition("=")
    multi = column.endswith(":multi")
    column = column.removesuffix(":multi")
    if not (name.strip() and equals and column):
        raise InvalidInput(f"{named('targets', shown(text))} is not NAME=COLUMN or NAME=COLUMN:multi")
    return specify(TargetSpec, {"name": "targets", "column": "targets"}, name=name.strip(), column=column, multi=multi)


def parse_where(text: str) -> tuple[str, str]:
    """`COL=VALUE`. Raises InvalidInput."""
    column, equals, value = text.partition("=")
    if not (column and equals):
        raise InvalidInput(f"{named('where', shown(text))} is not COLUMN=VALUE")
    return column, value


def parse_split(text: str) -> tuple[float, float, float]:
    """`80/10/10`: train, validation, test. Raises InvalidInput."""
    try:
        train, validation, test = (float(part) for part in text.split("/"))
    except ValueError as error:
        raise InvalidInput(f"{named('split', shown(text))} is not three numbers such as 80/10/10") from error
    parts = (train, validation, test)
    if not all(math.isfinite(part) and part >= 0 for part in parts) or not sum(parts):
        raise InvalidInput(f"{named('split', shown(text))}: parts must be 0 or more, and not all 0")
    return parts


def _check_options(spec: PrepareSpec) -> None:
    if spec.format == "factory":
        if spec.targets or spec.where:
            raise InvalidInput(
                "rows in the factory's format name their targets themselves: "
                f"no {named('targets')}, no {named('where')}"
            )
    elif not spec.targets:
        raise InvalidInput(
            f"name at least one target with {named('targets', 'NAME=COLUMN')}, or say {named('format', 'factory')}"
        )
    if fault := fault_of_targets(target.name for target in spec.targets):
        raise InvalidInput(fault, field="targets")
    if spec.separator is not None and not any(target.multi for target in spec.targets):
        raise InvalidInput(
            f"{named('separator')} parts the labels of a multi-label target: {named('targets', 'NAME=COLUMN:multi')}"
        )
    if spec.min_per_label and spec.max_per_label and spec.min_per_label > spec.max_per_label:
        least, most = str(spec.min_per_label), str(spec.max_per_label)
        raise InvalidInput(f"{named('min_per_label', least)} is above {named('max_per_label', most)}")
    if not 0 <= spec.seed < _SEEDS:
        raise InvalidInput(f"{named('seed')} must be from 0 to {_SEEDS - 1}")


def _check_first_rows(source: Source, spec: PrepareSpec) -> None:
    columns = first_columns(source)
    if spec.format == "factory":
        check_columns(source.name, columns, ["messages" if "messages" in columns else "text", "labels"], are_fixed=True)
    else:
        check_columns(source.name, columns, _columns_of(spec))


def _columns_of(spec: PrepareSpec) -> list[str]:
    if spec.format == "factory":
        return []
    return [spec.text, *(target.column for target in spec.targets), *(column for column, _ in spec.where)]


def _fields_of_columns(spec: PrepareSpec) -> Mapping[str, str | None]:
    if spec.format == "factory":
        return {}
    of_where = dict.fromkeys((column for column, _ in spec.where), "where")
    of_targets = dict.fromkeys((target.column for target in spec.targets), "targets")
    return of_where | of_targets | {spec.text: "text"}


def _insert(
    context: ServiceContext, request: PrepareRequest, job_id: str, spec: PrepareSpec, copies: Copies
) -> Accepted:
    key = request.idempotency_key
    digest = None if key is None else _digest_of(spec, copies)
    values = {"name": spec.name, "spec": spec.model_dump(mode="json"), **keyed(key, digest)}

    def write(connection: Connection) -> Accepted:
        if (before := accepted_before(connection, Kind.DATASET, key, digest)) is not None:
            return before
        create_job(connection, job_id, DatasetState.QUEUED, "submitted", metadata=request.metadata, **values)
        return Accepted(job_id, Kind.DATASET, DatasetState.QUEUED.value)

    return accept_job(context.engine, job_id, write)


def _digest_of(spec: PrepareSpec, copies: Copies) -> str:
    """Of the options and the rows; where the rows came from does not matter."""
    options = spec.model_dump(mode="json", exclude_defaults=True, exclude={"source", "files", "formats"})
    return digest_of_request(Kind.DATASET, spec=options, content=copies.digest)


@dataclass(frozen=True)
class DatasetsRequest:
    """How many of the latest datasets to list."""

    limit: int = 100


def list_datasets(context: ServiceContext, request: DatasetsRequest) -> list[DatasetEntry]:
    """The latest datasets, newest first; `label_counts` is target → number of labels. Raises InvalidInput."""
    check_limit(request.limit)
    d = DatasetRow
    statement = (
        select(
            d.id,
            d.name,
            d.version,
            d.state,
            d.repeats,
            d.splits,
            d.dropped,
            d.fingerprint,
            d.error,
            d.created_at,
            d.finished_at,
            d.label_schema,
        )
        .order_by(d.no.desc())
        .limit(request.limit)
    )
    with reading(context.engine) as connection:
        return [_entry(row) for row in connection.execute(statement).mappings()]


def _entry(row: RowMapping) -> DatasetEntry:
    finished_at = row["finished_at"]
    return {
        "id": row["id"],
        "name": row["name"],
        "version": row["version"],
        "state": row["state"],
        "repeats": row["repeats"],
        "splits": row["splits"],
        "dropped": row["dropped"],
        "fingerprint": row["fingerprint"],
        "error": row["error"],
        "created_at": row["created_at"].isoformat(),
        "finished_at": finished_at and finished_at.isoformat(),
        "label_counts": {target["name"]: len(target["labels"]) for target in row["label_schema"] or []},
    }
