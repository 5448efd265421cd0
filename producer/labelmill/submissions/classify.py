"""Submitting a batch: the input streams into compressed chunks in SQL, then small messages go to Redis."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.chunks.writer import BatchWriter
from labelmill.contracts.database import writing
from labelmill.contracts.dispatch import dispatch_batch
from labelmill.contracts.errors import BrokerUnavailable, InvalidInput
from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.messages import PRIORITY_OF
from labelmill.contracts.queue import REDIS_IS_DOWN, MessageSender
from labelmill.contracts.readers import BadRow, Input, TextBlock, expand_source, read_text_blocks
from labelmill.contracts.specs import ClassifySpec
from labelmill.contracts.states import BatchState
from labelmill.contracts.tables import BatchRow, EventRow, ModelRow, utc_now
from labelmill.registry import ref_of, resolve_model
from labelmill.submissions.skipped_rows import SkippedRows, record_skipped


def submit_batch(
    engine: Engine,
    sender: MessageSender,
    *,
    source: str,
    model: str,
    text: str = "text",
    id_column: str | None = None,
    mode: str = "realtime",
    priority: str = "normal",
    thresholds: Mapping[str, float] | None = None,
    multi: Sequence[str] = (),
    cache: bool = False,
    chats: bool = False,
    on_bad_row: Literal["fail", "skip"] = "fail",
    idempotency_key: str | None = None,
    warn: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> str:
    """Submit every text of `source` (a path, a glob or `-`) and return the batch's id.

    `cache`: reuse what earlier batches of the same model version were answered.
    `on_bad_row`: a row that cannot be read fails the submission, or is left out and counted (`skipped`).
    `thresholds`: target (or `*` for all) → least score of a label that is believed. Raises InvalidInput, NotFound.
    """
    if priority not in PRIORITY_OF:
        raise InvalidInput(f"--priority is one of {', '.join(PRIORITY_OF)}, not {priority!r}")
    if mode != "realtime":
        raise InvalidInput(f"mode {mode!r} is not offered yet: use --mode realtime")
    inputs: list[Input] = [sys.stdin.buffer] if source == "-" else list(expand_source(source))
    spec = ClassifySpec(source=source, text=text, id=id_column, thresholds=dict(thresholds or {}), multi=tuple(multi),
                        chats=chats, cache=cache, on_bad_row=on_bad_row)  # fmt: skip
    batch = _open_batch(engine, model, spec, mode, priority, idempotency_key)
    batch_id = batch.id
    skipped = SkippedRows() if on_bad_row == "skip" else None
    blocks = read_text_blocks(inputs, text, id_column, on_bad_row=_refuse if skipped is None else skipped)
    if batch.state != BatchState.SUBMITTING.value:
        _require_same_content(batch, blocks, on_progress)
        return batch_id
    try:
        _write(engine, batch, blocks, skipped, on_progress)
    except InvalidInput as error:
        if batch.is_new:
            _give_up(engine, batch.no, error)
        raise
    if skipped is not None and skipped.count:
        warn(str(skipped))
    try:
        dispatch_batch(engine, sender, batch_id)
    except BrokerUnavailable:
        warn(REDIS_IS_DOWN)
    return batch_id


@dataclass(frozen=True)
class _Opened:
    """The batch of a submission: new, or found by its key."""

    no: int
    id: str
    state: str
    content_digest: str | None = None
    is_new: bool = True
    has_key: bool = True


def _open_batch(engine: Engine, model: str, spec: ClassifySpec, mode: str, priority: str, key: str | None) -> _Opened:
    """Make the batch, or find the one with this idempotency key. Raises InvalidInput when the key stands for another
    model or other options."""
    with writing(engine) as connection:
        row = resolve_model(connection, model)
        _check_targets(spec, row)
        if key is not None:
            there = connection.execute(
                select(BatchRow.no, BatchRow.id, BatchRow.state, BatchRow.content_digest, BatchRow.options,
                       BatchRow.model_no, BatchRow.mode)
                .where(BatchRow.idempotency_key == key)
            ).first()  # fmt: skip
            if there is not None:
                # through the spec: options that came later were not written then
                options = ClassifySpec(**there.options).model_copy(update={"source": spec.source})
                if (there.model_no, there.mode, options) != (row.no, mode, spec):
                    raise InvalidInput(
                        f"the idempotency key {key!r} stands for {there.id}, which has another model or other options"
                    )
                return _Opened(there.no, there.id, there.state, there.content_digest, is_new=False)
        batch_id = new_id(Kind.BATCH)
        values = {
            "id": batch_id, "state": BatchState.SUBMITTING.value, "model_no": row.no, "model_ref": model, "mode": mode,
            "priority": priority, "options": spec.model_dump(mode="json"), "idempotency_key": key,
            "created_at": utc_now(),
        }  # fmt: skip
        batch_no = connection.execute(insert(BatchRow).values(values).returning(BatchRow.no)).scalar_one()
        event = {"job_id": batch_id, "at": utc_now(), "state": BatchState.SUBMITTING.value, "message": "submitted"}
        connection.execute(insert(EventRow).values(event))
    return _Opened(batch_no, batch_id, BatchState.SUBMITTING.value, has_key=key is not None)


def _check_targets(spec: ClassifySpec, model: ModelRow) -> None:
    """A misspelt target must not silently leave a batch without its threshold, or with one label of many."""
    if model.label_schema is None:
        return  # a raw id: its targets are not known yet, and the worker looks when they are
    targets = {target["name"]: bool(target.get("multi")) for target in model.label_schema}
    for option, names in (("--threshold", set(spec.thresholds) - {"*"}), ("--multi", spec.multi)):
        for name in names:
            if name not in targets:
                raise InvalidInput(f"{option} names {name!r}; the model's targets are {', '.join(targets)}")
    for name in spec.multi:
        if not targets[name]:
            remedy = f": give it a name of its own, labelmill models register NAME {model.remote_model} --multi {name}"
            raise InvalidInput(
                f"--multi {name}: {ref_of(model)} is known to give one label, as its first batch was submitted"
                f"{remedy if not model.version else ''}"
            )


def _require_same_content(batch: _Opened, blocks: Iterable[TextBlock], on_progress: Callable[[int], None]) -> None:
    from labelmill.contracts.chunks.encoding import ContentDigest  # noqa: PLC0415 - NumPy, a tenth of a second

    digest = ContentDigest()
    for block in blocks:
        digest.add(block.texts, block.ids)
        on_progress(len(block))
    if digest.hexdigest() != batch.content_digest:
        raise InvalidInput(f"the idempotency key stands for {batch.id}, which has other content: use another key")


def _write(
    engine: Engine,
    batch: _Opened,
    blocks: Iterable[TextBlock],
    skipped: SkippedRows | None,
    on_progress: Callable[[int], None],
) -> None:
    rows = 0
    with BatchWriter(engine, batch.no, batch.id, fingerprint=batch.has_key) as writer:
        for block in blocks:
            writer.add(block.texts, block.ids, most_chars=block.most_chars)
            rows += len(block)
            on_progress(len(block))
        if skipped is not None:
            record_skipped(engine, batch.no, batch.id, skipped, rows)
        writer.finish()


def _refuse(bad: BadRow) -> None:
    raise InvalidInput(f"{bad}; --on-bad-row skip leaves out what cannot be read")


def _give_up(engine: Engine, batch_no: int, error: InvalidInput) -> None:
    """End a batch whose input turned out to be wrong, and free its key for the mended input."""
    with writing(engine) as connection:
        connection.execute(
            update(BatchRow)
            .where(BatchRow.no == batch_no, BatchRow.state == BatchState.SUBMITTING.value)
            .values(state=BatchState.FAILED.value, finished_at=utc_now(), error=error.message, error_code=error.code,
                    idempotency_key=None)
        )  # fmt: skip
