"""Submitting a batch: the input streams into compressed chunks in SQL."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Self

from sqlalchemy import select
from sqlalchemy.engine import Engine

from labelmill.contracts.bounds import shown
from labelmill.contracts.calibration import temperatures_of
from labelmill.contracts.errors import DatabaseUnavailable, InvalidInput, KeyTaken
from labelmill.contracts.field_names import Notice, named
from labelmill.contracts.ids import Kind
from labelmill.contracts.messages import PRIORITY_OF
from labelmill.contracts.specs import ClassifySpec, specify
from labelmill.contracts.states import BatchState, Mode
from labelmill.core.chunks.sizes import ChunkSizes
from labelmill.core.chunks.writer import BatchEnded, BatchWriter, read_written
from labelmill.core.database import data_error_message, reading, writing
from labelmill.core.database.tables import BatchRow, ModelRow
from labelmill.core.jobs import events
from labelmill.core.readers import (
    OnBadRow,
    PythonRows,
    Source,
    TextBlock,
    columns_named_by,
    detect_sources,
    formats_of,
    inputs_of,
    read_options,
    read_text_blocks,
    refuse_file_options,
)
from labelmill.core.stopping import require_caller
from labelmill.core.storage.remote import is_url
from labelmill.services.context import ServiceContext
from labelmill.services.models import asked_model, ref_of
from labelmill.services.submissions.accepted import Accepted
from labelmill.services.submissions.caps import check_max_cost, models_asked
from labelmill.services.submissions.heartbeat import heartbeat
from labelmill.services.submissions.idempotency import check_identity
from labelmill.services.submissions.keys import (
    OpenedBatch,
    Order,
    end_broken_submission,
    model_submitted_before,
    open_batch,
    require_same_content,
)
from labelmill.services.submissions.repeated_ids import RepeatedIds
from labelmill.services.submissions.skipped_rows import RefusedRows, SkippedRows, record_skipped

AUTO = "auto"  #: The cheapest mode that keeps a deadline: by batch jobs, and in realtime what they would be late with.
MODES = (Mode.REALTIME.value, Mode.BATCH.value, AUTO)
_MAX_DEADLINE_S = 7 * 24 * 3600
_DEADLINE = re.compile(r"([0-9]{1,6})([mhd])", re.ASCII)
_SECONDS = {"m": 60, "h": 3600, "d": 24 * 3600}


@dataclass(frozen=True)
class ClassifyRequest:
    """A batch: every text of `spec.source` (a path, a glob, a URL or `-`), or of `rows`, to be classified by `model`.

    `idempotency_key`: the same key and input is the same batch, however often it is submitted.
    `metadata`: noted with the batch.
    """

    model: str
    spec: ClassifySpec
    mode: str = "realtime"
    priority: str = "normal"
    idempotency_key: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    rows: PythonRows | None = None  #: Of a program; `spec.source` is their name then.
    max_cost: float | None = None  #: USD; the batch pauses before it may cost more.

    @classmethod
    def of(
        cls,
        source: str | PythonRows,
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
    ) -> Self:
        """From what a person writes. Raises InvalidInput.

        `cache`: reuse what earlier batches of the same model version were answered.
        `encoding`, `delimiter`, `quoting`: how files are read; None: it is detected.
        `deadline`: how long `mode` auto, which needs it, may take: `90m`, `2h`, `1d`.
        `on_bad_row`: a row that cannot be read fails the submission, or is left out and counted (`skipped`).
        `thresholds`: target (or `*` for all) → the minimum of the best score; below it a row abstains.
        """
        rows: PythonRows | None = None
        if isinstance(source, PythonRows):
            rows, source = source, source.name
            refuse_file_options(encoding, delimiter, quoting)
        elif not is_url(source):
            inputs_of(source)  # first: a missing file is a more useful error than a name that cannot be stored
        spec = specify(
            ClassifySpec,
            {"id": "id_column"},
            source=source,
            text=text,
            id=id_column,
            thresholds=dict(thresholds or {}),
            multi=tuple(multi),
            chats=chats,
            cache=cache,
            deadline_s=read_deadline(mode, deadline),
            on_bad_row=on_bad_row,
            reading=read_options(encoding, delimiter, quoting),
        )
        return cls(model, spec, mode, priority, idempotency_key, metadata or {}, rows, max_cost)


def check_request(request: ClassifyRequest) -> None:
    """Raise InvalidInput for what no model or source could make right."""
    if request.priority not in PRIORITY_OF:
        raise InvalidInput(f"{named('priority')} is one of {', '.join(PRIORITY_OF)}, not {shown(request.priority)}")
    check_mode(request.mode)
    if (request.mode == AUTO) is not (request.spec.deadline_s is not None):
        raise InvalidInput(f"{named('mode', AUTO)} needs {named('deadline')}, and no other mode takes one")
    check_identity(request.idempotency_key, request.metadata)


def check_model(context: ServiceContext, request: ClassifyRequest, model: ModelRow) -> None:
    """Raise InvalidInput for targets that the model does not have, and for a cap on what has no known price."""
    _check_targets(request.spec, model)
    check_max_cost(request.max_cost, models_asked(model), context.prices)


def accept_batch(
    context: ServiceContext, request: ClassifyRequest, on_progress: Callable[[int], None] = lambda _: None
) -> Accepted:
    """Write a batch with all of its rows, which are streamed. `on_progress` is called with the number of rows read
    since its last call. Raises InvalidInput, NotFound."""
    context.require_tables()
    engine, spec, key = context.engine, request.spec, request.idempotency_key
    check_request(request)
    inputs = inputs_of(spec.source, context.remote) if request.rows is None else []
    with writing(engine) as connection:
        # the key first: a name may mean another version than when the same batch was submitted before
        row = None if key is None else model_submitted_before(connection, key, request.model)
        is_repeated, asked = row is not None, None
        if row is None:
            asked = asked_model(connection, request.model)
            row = asked.row
            check_model(context, request, row)
        spec = spec.model_copy(
            update={"temperatures": temperatures_of(row.calibration), "model_thresholds": row.thresholds or {}}
        )
    sources: list[Source | PythonRows] = []
    if request.rows is not None:
        sources.append(request.rows)
    else:
        with columns_named_by(_fields_of_columns(spec)):
            files = detect_sources(inputs, spec.reading, [spec.text] if spec.id is None else [spec.text, spec.id])
        spec = spec.model_copy(update={"formats": formats_of(files)})
        sources += files
    skipped = SkippedRows() if spec.on_bad_row == "skip" else None
    refused = RefusedRows()
    read_blocks = _read_blocks(sources, spec, refused if skipped is None else skipped)
    blocks = _begun(refused.none_in(read_blocks))
    with writing(engine) as connection:
        batch = open_batch(
            connection,
            Order(row.no, request.model, spec, request.mode, request.priority, request.max_cost),
            key,
            request.metadata,
            is_repeated=is_repeated,
        )
        if batch.is_new and asked is not None and asked.pinned is not None:
            events.note(connection, batch.id, asked.pinned)
    if batch.state != BatchState.SUBMITTING.value:
        require_same_content(batch, blocks, on_progress)
        return Accepted(batch.id, Kind.BATCH, batch.state, has_messages=False)
    try:
        repeated = _write(engine, batch, row.method, blocks, skipped, on_progress)
    except BatchEnded:
        ended = Notice(f"{batch.id} ended before all of its rows were written: none of them is sent")
        with reading(engine) as connection:
            state = connection.scalar(select(BatchRow.state).where(BatchRow.no == batch.no))
        return Accepted(batch.id, Kind.BATCH, str(state), (ended,), has_messages=False)
    except BaseException as error:
        if _ends_the_batch(batch, error):
            # a failed database cannot record it; the error that is raised reports it
            with contextlib.suppress(DatabaseUnavailable):
                end_broken_submission(engine, batch.id, error)
        if (words := data_error_message(error)) is not None:
            raise InvalidInput(f"the database cannot keep what was submitted: {words}") from error
        raise
    warnings = [*asked.warnings] if asked is not None else []
    if skipped is not None and skipped.count:
        warnings.append(Notice(str(skipped)))
    if repeated.example is not None:
        warnings.append(Notice(str(repeated)))
    return Accepted(batch.id, Kind.BATCH, BatchState.QUEUED.value, tuple(warnings))


def _fields_of_columns(spec: ClassifySpec) -> dict[str, str | None]:
    return {spec.id or "": "id_column", spec.text: "text"}


def _read_blocks(
    sources: Sequence[Source | PythonRows], spec: ClassifySpec, on_bad_row: OnBadRow
) -> Iterator[TextBlock]:
    with columns_named_by(_fields_of_columns(spec)):
        yield from read_text_blocks(sources, spec.text, spec.id, on_bad_row=on_bad_row)


def check_mode(mode: str) -> None:
    """Raise InvalidInput unless texts can be sent in this mode."""
    if mode not in MODES:
        raise InvalidInput(f"{named('mode')} is one of {', '.join(MODES)}, not {shown(mode)}")


def read_deadline(mode: str, deadline: str | None) -> int | None:
    """Seconds from the submission on. Raises InvalidInput, also for one without mode auto and for mode auto without."""
    check_mode(mode)
    if deadline is None:
        if mode == AUTO:
            raise InvalidInput(f"{named('mode', AUTO)} needs {named('deadline')}: 90m, 2h or 1d")
        return None
    if mode != AUTO:
        raise InvalidInput(f"{named('deadline')} goes with {named('mode', AUTO)}, not with {mode}")
    found = _DEADLINE.fullmatch(deadline.strip())
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= _MAX_DEADLINE_S:
        raise InvalidInput(f"{named('deadline')} is 1m to 7d, such as 90m, 2h or 1d, not {shown(deadline)}")
    return seconds


def _begun(blocks: Iterator[TextBlock]) -> Iterator[TextBlock]:
    """The same blocks, with the first one already read: errors of a whole file are raised before a batch is created."""
    first = next(blocks, None)
    return iter(()) if first is None else chain([first], blocks)


def _ends_the_batch(batch: OpenedBatch, error: BaseException) -> bool:
    """Whether a batch whose submission was interrupted is abandoned. A batch with a key waits for the next submission
    under it, unless it was created for this input and the input is wrong."""
    if not batch.is_new or isinstance(error, KeyTaken):
        return False
    return not batch.has_key or isinstance(error, InvalidInput)


def _check_targets(spec: ClassifySpec, model: ModelRow) -> None:
    """Refuse options for unknown targets: a misspelt target would silently lose its threshold or its labels."""
    if model.label_schema is None:
        return  # a raw id: its targets are not known yet; the worker checks them when they are
    targets = {target["name"]: bool(target.get("multi")) for target in model.label_schema}
    for option, names in (("thresholds", set(spec.thresholds) - {"*"}), ("multi", spec.multi)):
        for name in names:
            if name not in targets:
                raise InvalidInput(f"{named(option)} names {name!r}; the model's targets are {', '.join(targets)}")
    for name in spec.multi:
        if not targets[name]:
            remedy = f": give it a name of its own, labelmill models register NAME {model.remote_model} --multi {name}"
            raise InvalidInput(
                f"{named('multi', name)}: {ref_of(model)} is known to give one label, as its first batch was submitted"
                f"{remedy if not model.version else ''}"
            )


def _write(
    engine: Engine,
    batch: OpenedBatch,
    method: str,
    blocks: Iterable[TextBlock],
    skipped: SkippedRows | None,
    on_progress: Callable[[int], None],
) -> RepeatedIds:
    rows = 0
    repeated = RepeatedIds()
    with (
        heartbeat(engine, batch.no, at_once=not batch.is_new),
        BatchWriter(
            engine,
            batch.no,
            batch.id,
            sizes=ChunkSizes.of(method),
            fingerprint=batch.has_key,
            written=[] if batch.is_new else read_written(engine, batch.no),
        ) as writer,
    ):
        for block in blocks:
            require_caller()
            writer.add(block.texts, block.ids, max_chars=block.max_chars)
            if block.ids is not None:
                repeated.add(block.ids)
            rows += len(block)
            on_progress(len(block))
        if skipped is not None:
            record_skipped(engine, batch.no, batch.id, skipped, rows)
        require_caller()
        writer.finish()
    return repeated
