"""One key is one batch: whatever is submitted under it again, at the same moment, or after a death."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asked import cancel, retry, submit_batch
from sqlalchemy import select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import DatabaseUnavailable, InvalidInput, KeyTaken
from labelmill.core.chunks import sizes, writer
from labelmill.core.chunks.codec import decode_chunk
from labelmill.core.chunks.writer import BatchWriter
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, ChunkInputRow, ChunkRow
from labelmill.core.jobs.events import read_events
from labelmill.core.remote_models import Listed, keep_list
from labelmill.services.jobs.documents import status_document

MOST_COMMITS = 40
ROWS = 24  # at three texts a chunk: eight chunks, the last of them full


class Quiet:
    """A sender whose messages nobody reads."""

    def send(self, *_: Any, **__: Any) -> None:
        pass


class Killed(BaseException):
    """The process dies: nothing of it catches this."""


class Dying:
    """Kills at the `at`th commit of any thread, before it or after it; nothing is committed from then on."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch, at: int, *, before: bool) -> None:
        self._commit, self._lock = engine.dialect.do_commit, threading.Lock()
        self._at, self._before, self._seen = at, before, 0
        monkeypatch.setattr(engine.dialect, "do_commit", self._count)

    def _count(self, connection: Any) -> None:
        with self._lock:
            self._seen += 1
            if self._seen > self._at or (self._seen == self._at and self._before):
                raise Killed
        self._commit(connection)
        if self._seen == self._at:
            raise Killed


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_FIRST_TEXTS", 3)
    monkeypatch.setattr(writer, "_CHUNKS_PER_COMMIT", 2)


def source(folder: Path, texts: Sequence[str]) -> str:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"id": f"r{row}", "text": text}) + "\n" for row, text in enumerate(texts)))
    return str(path)


def submit(engine: Engine, folder: Path, texts: Sequence[str], **options: Any) -> str:
    given = {"source": source(folder, texts), "model": "ft:classifier:test", "id_column": "id"} | options
    return submit_batch(engine, Quiet(), **given)


def test_the_batch_of_a_key_keeps_the_model_that_its_moving_name_meant_then(engine: Engine, tmp_path: Path) -> None:
    name, before, now = "mistral-moderation-latest", "mistral-moderation-2603", "mistral-moderation-2609"

    def submit_when_it_means(meant: str, **options: Any) -> str:
        with writing(engine) as connection:
            keep_list(connection, [Listed(meant, (name,)), Listed(name, (meant,))])
        return submit(engine, tmp_path, ["a", "b"], model=name, **options)

    batch = submit_when_it_means(before, idempotency_key="moderated")
    assert submit_when_it_means(now, idempotency_key="moderated") == batch
    other = submit_when_it_means(now)
    with reading(engine) as connection:
        asked = [status_document(connection, job)["remote_model"] for job in (batch, other)]  # type: ignore[typeddict-item]
    assert asked == [before, now]
    said = [event.message for event in read_events(engine) if event.job_id == batch]
    assert said.count(f"asks {before}, which {name} means at Mistral now") == 1
    with pytest.raises(KeyTaken):
        submit(engine, tmp_path, ["a", "b"], model="mistral-moderation-2411", idempotency_key="moderated")


def rows_of(engine: Engine, batch_id: str) -> list[str]:
    """All texts of a batch, as a worker would read them; each chunk is open for work."""
    statement = (
        select(ChunkInputRow.data, ChunkRow.rows, ChunkRow.first_row)
        .join(ChunkRow, (ChunkRow.batch_no == ChunkInputRow.batch_no) & (ChunkRow.number == ChunkInputRow.number))
        .join(BatchRow, BatchRow.no == ChunkRow.batch_no)
        .where(BatchRow.id == batch_id)
        .order_by(ChunkRow.number)
    )
    found: list[str] = []
    with reading(engine) as connection:
        for data, rows, first_row in connection.execute(statement):
            assert first_row == len(found)
            found += decode_chunk(data).texts
            assert len(found) == first_row + rows
    return found


def runnable(engine: Engine) -> list[str]:
    with reading(engine) as connection:
        return list(connection.scalars(select(BatchRow.id).where(BatchRow.state == "queued").order_by(BatchRow.no)))


def state_of(engine: Engine, batch_id: str) -> Any:
    with reading(engine) as connection:
        return status_document(connection, batch_id)["state"]


def some_texts(count: int) -> list[str]:
    return [f"text {row if row % 7 else 0}" for row in range(count)]  # every seventh repeats the first


@pytest.mark.usefixtures("small_chunks")
def test_a_submission_that_an_earlier_version_began_is_finished(engine: Engine, tmp_path: Path) -> None:
    for number in range(2, MOST_COMMITS):
        key = f"k{number}"
        with pytest.MonkeyPatch.context() as patch:
            Dying(engine, patch, number, before=False)
            try:
                submit(engine, tmp_path, some_texts(ROWS), idempotency_key=key)
                break
            except Killed:
                engine.dispose()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sizes, "_FIRST_TEXTS", 5)
            batch_id = submit(engine, tmp_path, some_texts(ROWS), idempotency_key=key)
        assert rows_of(engine, batch_id) == some_texts(ROWS)
    else:
        pytest.fail("a submission has more commits than were tried")


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("count", [ROWS, 12, 13, 30, 31], ids=lambda count: f"{count}_rows_then")
@pytest.mark.usefixtures("small_chunks")
def test_after_a_death_at_any_commit_exactly_the_rows_of_the_next_submission_run(
    engine: Engine, tmp_path: Path, count: int, *, before: bool
) -> None:
    refused = 0
    for number in range(1, MOST_COMMITS):
        key = f"k{number}"
        with pytest.MonkeyPatch.context() as patch:
            Dying(engine, patch, number, before=before)
            try:
                submit(engine, tmp_path, some_texts(ROWS), idempotency_key=key)
                died = False
            except Killed:
                died = True
        engine.dispose()  # what the dead process held is let go
        asked = some_texts(count)
        try:
            batch_id = submit(engine, tmp_path, asked, idempotency_key=key)
        except KeyTaken as error:
            refused += 1
            taken = error.message.partition("`labelmill cancel ")[2].partition("`")[0]
            cancel(engine, Quiet(), taken)  # type: ignore[arg-type]
            batch_id = submit(engine, tmp_path, asked, idempotency_key=key)
            assert batch_id != taken
            assert state_of(engine, taken) == "cancelled"
        assert rows_of(engine, batch_id) == asked, number
        assert batch_id in runnable(engine)
        assert len(runnable(engine)) == number, "something runs that nobody asked for"
        assert submit(engine, tmp_path, asked, idempotency_key=key) == batch_id
        if not died:
            assert number > 4, "a submission has more commits than that"
            assert bool(refused) == (count != ROWS)
            return
    raise AssertionError("a submission has fewer commits than that")


@pytest.mark.parametrize("difference", ["shorter", "longer", "text", "id", "option", "priority", "model"])
@pytest.mark.parametrize("state", ["queued", "completed"])
def test_anything_else_under_a_key_is_refused_and_nothing_changes(
    engine: Engine, tmp_path: Path, difference: str, state: str
) -> None:
    texts = some_texts(20)
    batch_id = submit(engine, tmp_path, texts, idempotency_key="k")
    with writing(engine) as connection:
        connection.execute(update(BatchRow).values(state=state))
    other = {"shorter": texts[:10], "longer": [*texts, "more"], "text": [*texts[:-1], "other"]}.get(difference, texts)
    options: dict[str, Any] = {
        "id": {"id_column": None},
        "option": {"thresholds": {"*": 0.5}},
        "priority": {"priority": "high"},
        "model": {"model": "ft:classifier:other"},
    }.get(difference, {})
    with pytest.raises(KeyTaken) as refused:
        submit(engine, tmp_path, other, idempotency_key="k", **options)
    assert refused.value.exit_code == 2
    assert "use another key" in refused.value.message
    assert (f"labelmill cancel {batch_id}" in refused.value.message) == (state == "queued"), "a way that is barred"
    assert rows_of(engine, batch_id) == texts
    assert state_of(engine, batch_id) == state


def test_a_cancelled_batch_gives_its_key_up(engine: Engine, tmp_path: Path) -> None:
    first = submit(engine, tmp_path, some_texts(20), idempotency_key="k")
    cancel(engine, Quiet(), first)  # type: ignore[arg-type]
    second = submit(engine, tmp_path, some_texts(20), idempotency_key="k")
    assert second != first
    assert submit(engine, tmp_path, some_texts(20), idempotency_key="k") == second
    assert runnable(engine) == [second]


def at_the_same_moment(engine: Engine, tmp_path: Path, *contents: Sequence[str]) -> list[str | InvalidInput]:
    """What comes of submissions under one key that all have looked for it before any has made its batch."""
    together = threading.Barrier(len(contents))

    def one(number: int) -> str | InvalidInput:
        folder = tmp_path / str(number)
        folder.mkdir()
        together.wait(30)
        try:
            return submit(engine, folder, contents[number], idempotency_key="k")
        except InvalidInput as error:
            return error

    with ThreadPoolExecutor(len(contents)) as pool:
        return list(pool.map(one, range(len(contents))))


@pytest.mark.usefixtures("small_chunks")
def test_submissions_of_one_key_at_the_same_moment_are_one_batch(engine: Engine, tmp_path: Path) -> None:
    texts = some_texts(200)
    ids = at_the_same_moment(engine, tmp_path, *[texts] * 4)
    (batch_id,) = set(ids)
    assert isinstance(batch_id, str)
    assert rows_of(engine, batch_id) == texts
    assert runnable(engine) == [batch_id]


@pytest.mark.usefixtures("small_chunks")
def test_of_different_contents_under_one_key_at_the_same_moment_one_runs_at_most(
    engine: Engine, tmp_path: Path
) -> None:
    contents = [some_texts(200), some_texts(60), [*some_texts(100), "other"]]
    outcomes = at_the_same_moment(engine, tmp_path, *contents)
    accepted = [(text, content) for text, content in zip(outcomes, contents, strict=True) if isinstance(text, str)]
    assert len(accepted) <= 1
    assert [batch_id for batch_id, _ in accepted] == runnable(engine)
    for batch_id, content in accepted:
        assert rows_of(engine, batch_id) == content
    assert all(isinstance(one, (str, KeyTaken)) for one in outcomes), outcomes


@pytest.mark.usefixtures("small_chunks")
def test_a_batch_that_is_cancelled_while_it_is_submitted_stays_cancelled(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, warnings = BatchWriter._cut, list[str]()

    def cancel_at_the_third(one: BatchWriter, start: int, end: int) -> None:
        if len(one._first_rows) == 3:
            cancel(engine, Quiet(), one._batch_id)  # type: ignore[arg-type]
        cut(one, start, end)

    monkeypatch.setattr(BatchWriter, "_cut", cancel_at_the_third)
    batch_id = submit(engine, tmp_path, some_texts(200), warn=warnings.append)
    assert state_of(engine, batch_id) == "cancelled"
    assert "ended before all of its rows were written" in warnings[0]


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("fault", [RuntimeError("odd"), KeyboardInterrupt(), DatabaseUnavailable("gone")], ids=repr)
def test_no_batch_stays_open_because_of_an_exception_but_one_with_a_key_is_resumed(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, fault: BaseException
) -> None:
    def fail(_: BatchWriter) -> None:
        raise fault

    texts = some_texts(20)
    with monkeypatch.context() as patch:
        patch.setattr(BatchWriter, "finish", fail)
        with pytest.raises(type(fault)):
            submit(engine, tmp_path, texts, idempotency_key=key)
    with reading(engine) as connection:
        (broken,) = connection.scalars(select(BatchRow.id))
    assert state_of(engine, broken) == ("failed" if key is None else "submitting")
    if key is None:
        with pytest.raises(InvalidInput, match="submit it again"):
            retry(engine, Quiet(), broken)  # type: ignore[arg-type]
    again = submit(engine, tmp_path, texts, idempotency_key=key)
    assert (again == broken) == (key is not None)
    assert rows_of(engine, again) == texts
