"""Submitting a preparation: options checked, files copied into the data folder, the job written, the message sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy.engine import Engine

from labelmill.contracts.bounds import check_plain_name, fault_of_targets, shown
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.hub_reference import HUB, split_hub_reference
from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.messages import PREPARE, JobMessage
from labelmill.contracts.specs import PrepareSpec, ReadOptions, TargetSpec, specify
from labelmill.contracts.states import DatasetState
from labelmill.core.database import writing
from labelmill.core.jobs.transitions import create_job
from labelmill.core.queue.sender import MessageSender, accepted
from labelmill.core.readers import (
    Source,
    check_columns,
    detect_sources,
    first_columns,
    formats_of,
    inputs_of,
    read_options,
)
from labelmill.core.settings import Settings
from labelmill.services.submissions.source_copies import copy_into_data_folder

_SEEDS = 2**32


def submit_prepare(
    engine: Engine,
    sender: MessageSender,
    settings: Settings,
    *,
    name: str,
    source: str,
    targets: Sequence[str] = (),
    where: Sequence[str] = (),
    split: str = "80/10/10",
    encoding: str | None = None,
    delimiter: str | None = None,
    quoting: str | None = None,
    warn: Callable[[str], None] = lambda _: None,
    announce: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> str:
    """Submit the preparation of `source` as dataset `name`. Returns the job's id.

    `targets` are `NAME=COL[:multi]`, `where` is `COL=VALUE`; `encoding`, `delimiter` and `quoting` say how files are
    read, where that is not left to be found out; `options` are the other fields of `PrepareSpec`. With Redis
    down it is accepted all the same and `warn` is told. Raises InvalidInput for whatever is wrong with the arguments
    or the files' first rows, Permanent when the data folder cannot be written.
    """
    check_plain_name("dataset", name)
    hub = source.removeprefix(HUB) if source.startswith(HUB) else None
    spec = specify(
        PrepareSpec,
        {},
        name=name,
        source=source,
        hf=hub,
        split=parse_split(split),
        targets=tuple(map(parse_target, targets)),
        where=tuple(map(parse_where, where)),
        reading=read_options(encoding, delimiter, quoting),
        **options,
    )
    _check_options(spec)
    job_id = new_id(Kind.DATASET)
    if hub is not None:
        if spec.reading != ReadOptions():
            raise InvalidInput("--encoding, --delimiter and --quoting are for files, not for datasets of the hub")
        split_hub_reference(hub)
    else:
        sources = detect_sources(inputs_of(source), spec.reading, _columns_of(spec))
        files = copy_into_data_folder(sources, settings, job_id, partial(_check_first_rows, spec=spec))
        spec = spec.model_copy(update={"files": files, "formats": formats_of(sources)})
    _insert(engine, job_id, spec)
    with accepted(job_id, warn, announce):
        sender.send(PREPARE, [JobMessage(job_id=job_id)])
    return job_id


def parse_target(text: str) -> TargetSpec:
    """`NAME=COL[:multi]`. Raises InvalidInput."""
    name, equals, column = text.partition("=")
    multi = column.endswith(":multi")
    column = column.removesuffix(":multi")
    if not (name.strip() and equals and column):
        raise InvalidInput(f"--target {shown(text)} is not NAME=COLUMN or NAME=COLUMN:multi")
    return specify(TargetSpec, {"name": "target", "column": "target"}, name=name.strip(), column=column, multi=multi)


def parse_where(text: str) -> tuple[str, str]:
    """`COL=VALUE`. Raises InvalidInput."""
    column, equals, value = text.partition("=")
    if not (column and equals):
        raise InvalidInput(f"--where {shown(text)} is not COLUMN=VALUE")
    return column, value


def parse_split(text: str) -> tuple[float, float, float]:
    """`80/10/10`: train, validation, test. Raises InvalidInput."""
    try:
        train, validation, test = (float(part) for part in text.split("/"))
    except ValueError as error:
        raise InvalidInput(f"--split {shown(text)} is not three numbers such as 80/10/10") from error
    parts = (train, validation, test)
    if not all(math.isfinite(part) and part >= 0 for part in parts) or not sum(parts):
        raise InvalidInput(f"--split {shown(text)}: parts must be 0 or more, and not all 0")
    return parts


def _check_options(spec: PrepareSpec) -> None:
    if spec.format == "factory":
        if spec.targets or spec.where:
            raise InvalidInput("rows in the factory's format name their targets themselves: no --target, no --where")
    elif not spec.targets:
        raise InvalidInput("name at least one target with --target NAME=COLUMN, or say --format factory")
    if fault := fault_of_targets(target.name for target in spec.targets):
        raise InvalidInput(fault)
    if spec.separator is not None and not any(target.multi for target in spec.targets):
        raise InvalidInput("--separator parts the labels of a multi-label target: --target NAME=COLUMN:multi")
    if spec.min_per_label and spec.max_per_label and spec.min_per_label > spec.max_per_label:
        raise InvalidInput(f"--min-per-label {spec.min_per_label} is above --max-per-label {spec.max_per_label}")
    if not 0 <= spec.seed < _SEEDS:
        raise InvalidInput(f"--seed must be from 0 to {_SEEDS - 1}")


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


def _insert(engine: Engine, job_id: str, spec: PrepareSpec) -> None:
    with writing(engine) as connection:
        create_job(
            connection, job_id, DatasetState.QUEUED, "submitted", name=spec.name, spec=spec.model_dump(mode="json")
        )
