"""Readers of `events` get each of them once, in one order, whatever transactions overlap."""

from __future__ import annotations

import threading

import pytest
from pgbouncer import PgBouncer
from sqlalchemy import delete, select
from sqlalchemy.engine import Engine

from labelmill.core.database import connect, reading, writing
from labelmill.core.database.tables import EventRow
from labelmill.core.jobs import events
from labelmill.core.jobs.events import Event, note, read_events


def _note(engine: Engine, *messages: str) -> None:
    for message in messages:
        with writing(engine) as connection:
            note(connection, "batch_1", message)


def _words(found: list[Event]) -> list[str]:
    return [event.message for event in found]


def _read_all(engine: Engine, limit: int) -> list[Event]:
    found: list[Event] = []
    while some := read_events(engine, found[-1].position if found else 0, limit):
        found += some
    return found


def test_events_come_in_order_and_a_reader_goes_on_after_its_last_one(engine: Engine) -> None:
    _note(engine, "a", "b", "c")
    first = read_events(engine, limit=2)
    assert _words(first) == ["a", "b"]
    _note(engine, "d")
    rest = read_events(engine, first[-1].position, limit=10)
    assert _words(rest) == ["c", "d"]
    assert read_events(engine, rest[-1].position) == []
    assert _words(_read_all(engine, 1)) == ["a", "b", "c", "d"], "a second reader sees the same"


def test_more_events_than_are_numbered_at_once_are_all_read(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_NUMBERED_AT_ONCE", 3)
    _note(engine, *map(str, range(11)))
    found = _read_all(engine, 2)
    assert _words(found) == list(map(str, range(11)))
    assert [event.position for event in found] == list(range(1, 12))


def _commit_late(engine: Engine, by: Engine) -> None:
    """An event whose number is drawn first is committed last, while a reader, `by`, reads on."""
    with writing(engine) as slow:
        note(slow, "batch_1", "numbered first")
        _note(engine, "numbered second")
        seen = read_events(by)
        assert _words(seen) == ["numbered second"], "nobody waits for the transaction that goes on"
    late = read_events(by, seen[-1].position)
    assert _words(late) == ["numbered first"], "it was not passed over"
    with reading(engine) as connection:
        numbers = {row.message: row.no for row in connection.execute(select(EventRow.message, EventRow.no))}
    assert numbers["numbered first"] < numbers["numbered second"]
    assert _words(_read_all(by, 1)) == ["numbered second", "numbered first"], "in the same order to all"


@pytest.mark.postgres
def test_an_event_that_is_committed_after_a_later_one_is_not_lost(postgres_url: str) -> None:
    engine = connect(postgres_url)
    _commit_late(engine, engine)
    engine.dispose()


@pytest.mark.postgres
def test_none_is_lost_behind_a_pooler(postgres_url: str, pgbouncer: PgBouncer) -> None:
    engine, pooled = connect(postgres_url), connect(pgbouncer.url(postgres_url.rpartition("/")[2]))
    _commit_late(engine, pooled)
    pooled.dispose()
    engine.dispose()


def test_readers_beside_writers_all_see_every_event_once_in_one_order(engine: Engine) -> None:
    written, writers, readers = 25, 3, 2
    seen: list[list[Event]] = [[] for _ in range(readers)]
    done = threading.Event()

    def write(name: int) -> None:
        for number in range(written):
            with writing(engine) as connection:
                note(connection, f"batch_{name}", f"{name} {number}")

    def read(found: list[Event]) -> None:
        while True:
            is_last = done.is_set()
            some = read_events(engine, found[-1].position if found else 0, 7)
            found += some
            if is_last and not some:
                return

    writing_threads = [threading.Thread(target=write, args=(name,)) for name in range(writers)]
    reading_threads = [threading.Thread(target=read, args=(found,)) for found in seen]
    for thread in (*reading_threads, *writing_threads):
        thread.start()
    for thread in writing_threads:
        thread.join()
    done.set()
    for thread in reading_threads:
        thread.join()
    assert seen[0] == seen[1]
    for name in range(writers):
        own = [event.message for event in seen[0] if event.job_id == f"batch_{name}"]
        assert own == [f"{name} {number}" for number in range(written)]


def test_positions_go_on_when_old_events_are_deleted(engine: Engine) -> None:
    _note(engine, "a", "b")
    last = read_events(engine)[-1].position
    with writing(engine) as connection:
        connection.execute(delete(EventRow).where(EventRow.position < last))
    _note(engine, "c")
    assert _words(read_events(engine, last)) == ["c"]
