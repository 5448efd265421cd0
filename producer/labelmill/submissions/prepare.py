"""Submitting a preparation: options checked, files copied into the data folder, the job written, the message sent."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import insert
from sqlalchemy.engine import Engine

from labelmill.contracts.bounds import check_plain_name, fault_of_targets, shown
from labelmill.contracts.database import writing
from labelmill.contracts.errors import InvalidInput, Permanent
from labelmill.contracts.hub_reference import HUB, split_hub_reference
from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.messages import PREPARE, JobMessage
from labelmill.contracts.queue import MessageSender, accepted
from labelmill.contracts.readers import check_columns, expand_source, first_columns
from labelmill.contracts.settings import Settings
from labelmill.contracts.specs import PrepareSpec, TargetSpec, specify
from labelmill.contracts.states import DatasetState
from labelmill.contracts.storage import DataFolder, source_folder
from labelmill.contracts.tables import DatasetRow, EventRow, utc_now

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
    warn: Callable[[str], None] = lambda _: None,
    announce: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> str:
    """Submit the preparation of `source` as dataset `name`. Returns the job's id.

    `targets` are `NAME=COL[:multi]`, `where` is `COL=VALUE`, `options` the other fields of `PrepareSpec`. With Redis
    down it is accepted all the same and `warn` is told. Raises InvalidInput for whatever is wrong with the arguments
    or the files' first rows, Permanent when the data folder cannot be written.
    """
    check_plain_name("dataset", name)
    hub = source.removeprefix(HUB) if source.startswith(HUB) else None
    spec = specify(
        PrepareSpec, {}, name=name, source=source, hf=hub, split=parse_split(split),
        targets=tuple(map(parse_target, targets)), where=tuple(map(parse_where, where)), **options,
    )  # fmt: skip
    _check_options(spec)
    job_id = new_id(Kind.DATASET)
    if hub is not None:
        split_hub_reference(hub)
    else:
        files = expand_source(source) if source != "-" else []
        if not files:
            raise InvalidInput("prepare reads files, not standard input")
        for file in files:
            _check_first_row(file, spec)
        spec = spec.model_copy(update={"files": copy_into_data_folder(files, settings, job_id)})
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


def _check_first_row(file: Path, spec: PrepareSpec) -> None:
    columns = first_columns(file)
    if spec.format == "factory":
        check_columns(file.name, columns, ["messages" if "messages" in columns else "text", "labels"], are_fixed=True)
    else:
        wanted = [spec.text, *(target.column for target in spec.targets), *(column for column, _ in spec.where)]
        check_columns(file.name, columns, wanted)


def copy_into_data_folder(files: Sequence[Path], settings: Settings, job_id: str) -> tuple[str, ...]:
    """Copy `files` to where workers may read them, all or none. Returns the references to the copies."""
    data = DataFolder.of(settings.data_dir)
    data.make()
    folder = data.path(source_folder(job_id))
    part = folder.with_name(f"{job_id}.part")
    unique = len({file.name for file in files}) == len(files)
    names = [file.name if unique else f"{number:04}-{file.name}" for number, file in enumerate(files)]
    try:
        part.mkdir(parents=True)
        for file, name in zip(files, names, strict=True):
            shutil.copyfile(file, part / name)
        data.give_to_owner(part)
        part.rename(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise Permanent(
            f"the source could not be copied into {settings.data_dir}: {error.strerror or error}"
        ) from error
    return tuple(data.reference(folder / name) for name in names)


def _insert(engine: Engine, job_id: str, spec: PrepareSpec) -> None:
    values = {
        "id": job_id, "state": DatasetState.QUEUED.value, "name": spec.name, "spec": spec.model_dump(mode="json"),
        "created_at": utc_now(),
    }  # fmt: skip
    event = {"job_id": job_id, "at": utc_now(), "state": DatasetState.QUEUED.value, "message": "submitted"}
    with writing(engine) as connection:
        connection.execute(insert(DatasetRow).values(values))
        connection.execute(insert(EventRow).values(event))
