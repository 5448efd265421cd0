"""PostgreSQL commits what a worker recorded, and its answer is lost on the way: nothing is written or counted again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from asked import submit_evaluation, submit_training
from sqlalchemy import func, select
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral
from workshop import SCHEMA, Workshop, intent_rows, open_workshop

from labelmill.core.database import connect, reading
from labelmill.core.database.tables import ChunkRow, EventRow
from labelmill_worker.inference import entry_writer as recording
from labelmill_worker.store.commits import was_committed

pytestmark = pytest.mark.postgres


class Losing:
    """Every second transaction with answers is carried out, or rolled back, and its connection ends with no answer."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch, *, carried_out: bool) -> None:
        self._commit, self._record, self._carried_out = engine.dialect.do_commit, recording.record_entries, carried_out
        self._written = self.lost = 0
        self._loses_next = False
        monkeypatch.setattr(engine.dialect, "do_commit", self._commit_or_lose)
        monkeypatch.setattr(recording, "record_entries", self._note)

    def _note(self, *arguments: Any) -> Any:
        self._written += 1
        self._loses_next = self._written % 2 == 1
        return self._record(*arguments)

    def _commit_or_lose(self, connection: Any) -> None:
        if not self._loses_next or threading.current_thread().name != "recorder":
            self._commit(connection)
            return
        self._loses_next = False
        self.lost += 1
        if self._carried_out:
            self._commit(connection)
        connection.dbapi_connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")


@pytest.fixture
def shop(postgres_url: str, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    with open_workshop(postgres_url, mistral, redis_url, tmp_path) as made:
        yield made


def faults_noted(shop: Workshop) -> int:
    with reading(shop.engine) as connection:
        return (
            connection.scalar(select(func.count()).select_from(EventRow).where(EventRow.message.like("unexpected%")))
            or 0
        )


def miscounted(shop: Workshop) -> int:
    with reading(shop.engine) as connection:
        wrong = (ChunkRow.labelled != ChunkRow.rows) | (ChunkRow.requests != (ChunkRow.texts + 9) // 10)
        return connection.scalar(select(func.count()).select_from(ChunkRow).where(wrong)) or 0


@pytest.mark.parametrize("carried_out", [True, False], ids=["committed", "rolled back"])
def test_answers_are_recorded_once(
    shop: Workshop, mistral: StrictMistral, monkeypatch: pytest.MonkeyPatch, *, carried_out: bool
) -> None:
    dataset = shop.dataset("d", SCHEMA, train=intent_rows("t", 8), test=intent_rows("e", 95))
    shop.model("m", SCHEMA, dataset_id=dataset)
    losing = Losing(shop.engine, monkeypatch, carried_out=carried_out)
    done = shop.run(submit_evaluation(shop.engine, shop.sender, model="m", dataset="d"))
    assert losing.lost > 1
    assert done["metrics"]["intent"]["accuracy"] == 1.0
    assert set(mistral.billed.values()) == {1}
    assert (faults_noted(shop), miscounted(shop)) == (0, 0)


@pytest.mark.parametrize("carried_out", [True, False], ids=["committed", "rolled back"])
def test_vectors_are_counted_once(
    shop: Workshop, mistral: StrictMistral, monkeypatch: pytest.MonkeyPatch, *, carried_out: bool
) -> None:
    shop.dataset("d", SCHEMA, train=intent_rows("t", 80), validation=intent_rows("v", 15))
    losing = Losing(shop.engine, monkeypatch, carried_out=carried_out)
    job = submit_training(shop.engine, shop.sender, name="m", dataset="d", yes=True)
    while not shop.status(job)["batch"]:
        shop.step()
    batch = shop.run(shop.status(job)["batch"])
    assert losing.lost > 1
    assert (batch["rows"]["labelled"], batch["rows"]["pending"]) == (95, 0)
    assert set(mistral.billed.values()) == {1}
    assert (faults_noted(shop), miscounted(shop)) == (0, 0)


def test_a_transaction_that_the_server_never_saw_the_end_of_is_none(postgres_url: str) -> None:
    engine = connect(postgres_url)
    with engine.connect() as connection:
        with psycopg.connect(postgres_url) as other:
            number = str(other.execute("SELECT pg_current_xact_id()::text").fetchone()[0])  # type: ignore[index]
            other.rollback()
        assert not was_committed(connection, number)
    engine.dispose()
