"""Reading a batch's results back: in input order with their texts, chunk by chunk, at constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

import orjson
from sqlalchemy import bindparam, null, select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.bounds import shown
from labelmill.contracts.errors import DatabaseUnavailable, NotFound
from labelmill.contracts.ids import Kind, kind_of
from labelmill.contracts.job_kinds import ENDED
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.contracts.states import BatchState, ChunkState
from labelmill.core.chunks.codec import decode_quoted
from labelmill.core.database import reading
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import (
    BatchRow,
    ChunkInputRow,
    ChunkRow,
    DuplicateRow,
    EvaluationRow,
    ModelRow,
    PredictionRow,
    RowErrorRow,
)
from labelmill.core.jobs.tables import TABLE_OF
from labelmill.services.jobs.lost_reads import LostReads
from labelmill.services.jobs.pausing import pause
from labelmill.services.results.scores import ALL, ScoreChoice

if TYPE_CHECKING:
    from labelmill.services.results.lines import ChunkResults, TargetAnswers

_LOOK_S = 0.3
#: Chunks that are read while another is written: a reader waits for the interpreter lock at every statement.
_AHEAD = 1


class Only(StrEnum):
    """Which rows to read."""

    FAILED = "failed"
    ABSTAINED = "abstained"


OnlyName = Only | Literal["failed", "abstained"]


def batch_behind(connection: Connection, job_id: str) -> str | None:
    """The batch whose rows are a job's: its own, or of an evaluation the one that classifies its split. None: the job
    has no rows (yet). Raises NotFound."""
    kind = kind_of(job_id)
    statements = {
        Kind.BATCH: select(BatchRow.id).where(BatchRow.id == job_id, BatchRow.purging.is_(False)),
        Kind.EVALUATION: select(EvaluationRow.batch_id).where(EvaluationRow.id == job_id),
    }
    job = None
    if kind is not None:
        no_rows = select(null()).where(TABLE_OF[kind].id == job_id)
        job = connection.execute(statements.get(kind, no_rows)).first()
    if job is None:
        raise _no_job(job_id)
    return job[0]


def _no_job(job_id: str) -> NotFound:
    return NotFound(f"no job has the id {shown(job_id)}; `labelmill status` lists the latest")


def read_results(
    engine: Engine, job_id: str, *, only: Only | None = None, follow: bool = False
) -> Iterator[dict[str, Any]]:
    """Rows of a batch or an evaluation that have an answer or an error, in input order: `{"row", "id", "text",
    "predictions", "error"}`. Other jobs have none.

    With `follow`, waits for each chunk in turn until the batch ends. Raises NotFound at the first row.
    """
    for lines in read_result_lines(engine, job_id, only=only, follow=follow):
        yield from map(orjson.loads, lines.splitlines())


def read_result_lines(
    engine: Engine,
    job_id: str,
    *,
    only: Only | None = None,
    follow: bool = False,
    scores: ScoreChoice = ALL,
    lost: LostReads | None = None,
) -> Generator[bytes, None, None]:
    """The same rows as lines of JSON, some hundreds in one piece, with the scores that are chosen. `lost`: as for
    `read_result_chunks`."""
    for chunk in read_result_chunks(engine, job_id, only=only, follow=follow, scores=scores, lost=lost):
        yield from chunk.lines()


def read_result_chunks(
    engine: Engine,
    job_id: str,
    *,
    only: Only | None = None,
    follow: bool = False,
    scores: ScoreChoice = ALL,
    lost: LostReads | None = None,
) -> Generator[ChunkResults, None, None]:
    """The same rows in columns, chunk by chunk. `lost` retries failed reads; without it, and without `follow`, the
    first failed read ends the reading."""
    if lost is None and follow:
        lost = LostReads(job_id, lambda _: None)
    batch_id = _await_batch(engine, job_id, follow=follow, lost=lost)
    if batch_id is None:
        return
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="results") as ahead:  # read while one before them is shown

        def look(number: int) -> Future[_Look]:
            return ahead.submit(_look, engine, job_id, batch_id, number, scores, only, follow=follow)

        number = 0
        coming = deque(look(ahead_by) for ahead_by in range(_AHEAD))
        while True:
            try:
                chunk = coming.popleft().result()
            except DatabaseUnavailable as error:
                if lost is None:
                    raise
                lost.wait_after(error)
                coming = deque(look(number + ahead_by) for ahead_by in range(_AHEAD))  # all of them met it
                continue
            if lost is not None:
                lost.succeeded()
            if chunk.is_end:
                break
            if chunk.is_early:
                pause(_LOOK_S)
                coming.appendleft(look(number))
                continue
            coming.append(look(number + _AHEAD))
            number += 1
            if chunk.rows is not None:
                yield chunk.rows


@dataclass(frozen=True, slots=True)
class ResultFacts:
    """What a table of a batch's rows needs besides the rows."""

    options: dict[str, Any]  #: A `ClassifySpec`.
    targets: list[str]


def facts_of_batch(
    engine: Engine, job_id: str, *, follow: bool, needs_targets: bool, lost: LostReads | None = None
) -> ResultFacts | None:
    """The facts of a job's batch. With `follow`, waits until there is one, and until the labels of a model known by its
    id alone have come with its first answer where `needs_targets`. `lost`: as for `read_result_lines`. None: the job
    has no rows. Raises NotFound."""
    batch_id = _await_batch(engine, job_id, follow=follow, lost=lost)
    if batch_id is None:
        return None

    def look() -> Any:
        with reading(engine) as connection:
            return connection.execute(
                select(BatchRow.options, BatchRow.state, ModelRow.label_schema)
                .join(ModelRow, BatchRow.model_no == ModelRow.no)
                .where(BatchRow.id == batch_id, BatchRow.purging.is_(False))
            ).first()

    while True:
        facts = lost.read(look) if lost is not None else look()
        if facts is None:
            raise _no_job(job_id)
        may_come = follow and needs_targets and facts.state not in ENDED
        if facts.label_schema is not None or not may_come:
            return ResultFacts(facts.options, [target["name"] for target in facts.label_schema or []])
        pause(_LOOK_S)


def _await_batch(engine: Engine, job_id: str, *, follow: bool, lost: LostReads | None) -> str | None:
    """The job's batch. With `follow`, waits until an evaluation has one."""

    def look() -> tuple[str | None, str | None]:
        with reading(engine) as connection:
            batch_id = batch_behind(connection, job_id)
            return batch_id, connection.scalar(select(EvaluationRow.state).where(EvaluationRow.id == job_id))

    while True:
        batch_id, state = lost.read(look) if lost is not None else look()
        if batch_id is not None or not follow or state is None or state in ENDED:
            return batch_id
        pause(_LOOK_S)


@dataclass(frozen=True, slots=True)
class _Look:
    """The result of reading one chunk: its rows, or that it must be read again later, or that it does not exist."""

    rows: ChunkResults | None = None
    is_early: bool = False
    is_end: bool = False


def _look(
    engine: Engine, job_id: str, batch_id: str, number: int, scores: ScoreChoice, only: Only | None, *, follow: bool
) -> _Look:
    with reading(engine) as connection:
        batch = connection.execute(_BATCH, {"id": batch_id}).first()
        if batch is None or batch.purging:  # rows of it may be gone: what is left would look like all
            raise _no_job(job_id)
        chunk = connection.execute(_CHUNK, {"of_batch": batch.no, "number": number}).first()
        ended = batch.state in ENDED
        if chunk is None:
            coming = follow and not ended and batch.state == BatchState.SUBMITTING.value
            return _Look(is_early=True) if coming else _Look(is_end=True)
        if follow and not ended and chunk.state != ChunkState.DONE.value:
            return _Look(is_early=True)
        return _Look(_read_chunk(connection, batch, chunk, scores, only))


# built once: building a statement for every chunk takes longer than running it
_BATCH = select(BatchRow.no, BatchRow.state, BatchRow.model_no, BatchRow.purging).where(BatchRow.id == bindparam("id"))
_CHUNK = (
    select(ChunkRow.state, ChunkRow.first_row, ChunkRow.rows, ChunkInputRow.data)
    .join(ChunkInputRow, (ChunkInputRow.batch_no == ChunkRow.batch_no) & (ChunkInputRow.number == ChunkRow.number))
    .where(ChunkRow.batch_no == bindparam("of_batch"), ChunkRow.number == bindparam("number"))
)


def _within(table: type[PredictionRow | RowErrorRow | DuplicateRow]) -> Any:
    return (
        (table.batch_no == bindparam("of_batch")) & (table.row >= bindparam("first")) & (table.row < bindparam("end"))
    )


def _of_first(table: type[PredictionRow | RowErrorRow]) -> Any:
    return (table.batch_no == DuplicateRow.batch_no) & (table.row == DuplicateRow.first_row)


_OWN = (
    "FROM prediction_rows WHERE batch_no = %(of_batch)s AND row >= %(first)s AND row < %(end)s AND target = %(target)s"
)
_REPEATED = (
    "FROM duplicate_rows d JOIN prediction_rows p ON p.batch_no = d.batch_no AND p.row = d.first_row "
    "WHERE d.batch_no = %(of_batch)s AND d.row >= %(first)s AND d.row < %(end)s AND p.target = %(target)s"
)
# Each column of a chunk's rows in one value: a tuple for each row takes longer than everything else.
_COLUMNS = """string_agg(int8send({row}), ''), string_agg(coalesce(label, ''), %(between)s),
    string_agg(float4send(score), ''), string_agg({scores}, '')"""
#: Where no scores are requested: those of rows that abstained are needed to find the best label.
_SCORES_OF_SILENT = "CASE WHEN label IS NULL AND labels IS NULL THEN scores END"
_BETWEEN = "\x1f"
_OWN_ERRORS = select(RowErrorRow.row, RowErrorRow.code, RowErrorRow.message).where(_within(RowErrorRow))
_REPEATED_ERRORS = (
    select(DuplicateRow.row, RowErrorRow.code, RowErrorRow.message)
    .join(RowErrorRow, _of_first(RowErrorRow))
    .where(_within(DuplicateRow))
)


def _read_chunk(connection: Connection, batch: Any, chunk: Any, scores: ScoreChoice, only: Only | None) -> ChunkResults:
    from labelmill.services.results.lines import ChunkResults  # noqa: PLC0415 - NumPy, which commands that only look spare

    schema_json = connection.scalar(select(ModelRow.label_schema).where(ModelRow.no == batch.model_no))
    quoted = decode_quoted(chunk.data)
    of_chunk = {"of_batch": batch.no, "first": chunk.first_row, "end": chunk.first_row + chunk.rows}
    results = ChunkResults(chunk.first_row, quoted, [], choice=scores, only=only)
    for number, target in enumerate(LabelSchema.from_json(schema_json or []).targets):
        values = of_chunk | {"target": number}
        answers = _read_answers(connection, target, values, scores, with_repeats=quoted.has_repeats)
        results.answers.append((target, answers))
    for statement in (_OWN_ERRORS, _REPEATED_ERRORS) if quoted.has_repeats else (_OWN_ERRORS,):
        for row, code, message in connection.execute(statement, of_chunk):
            results.errors[row] = (code, message)
    return results


def _read_answers(
    connection: Connection, target: Target, values: dict[str, int], choice: ScoreChoice, *, with_repeats: bool
) -> TargetAnswers:
    from labelmill.services.results.lines import TargetAnswers  # noqa: PLC0415 - as above

    scores = "scores" if choice.at_most != 0 else _SCORES_OF_SILENT
    dialect = dialect_of(connection)
    if dialect.aggregates_bytes and not target.multi and _labels_are_told_apart(target):
        numbers, labels, best, of_labels = b"", [], b"", b""
        for row, rows in (("row", _OWN), ("d.row", _REPEATED)) if with_repeats else (("row", _OWN),):
            columns = _COLUMNS.format(row=row, scores=scores)
            (answers,) = dialect.execute_raw(connection, f"SELECT {columns} {rows}", values | {"between": _BETWEEN})
            if answers[0] is not None:
                numbers, best, of_labels = numbers + answers[0], best + answers[2], of_labels + (answers[3] or b"")
                labels += answers[1].split(_BETWEEN)
        return TargetAnswers.of_columns(target, (numbers, labels, best, of_labels), choice)
    answers = dialect.execute_raw(connection, f"SELECT row, label, labels, score, {scores} {_OWN}", values)
    if with_repeats:
        answers += dialect.execute_raw(connection, f"SELECT d.row, label, labels, score, {scores} {_REPEATED}", values)
    return TargetAnswers.of_rows(target, answers, choice)


def _labels_are_told_apart(target: Target) -> bool:
    """Whether labels can be read from one concatenated text, in which an empty label means none."""
    return all(label and _BETWEEN not in label for label in target.labels)
