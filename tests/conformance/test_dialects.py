"""SQLite and PostgreSQL give the same results to whatever asks a dialect, and nothing else asks which of them it is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import bindparam, select, text, update
from sqlalchemy.engine import Engine

import labelmill
import labelmill_worker
from labelmill.contracts.errors import InvalidInput
from labelmill.core.database import connect, db_now, lock_name, reading, writing
from labelmill.core.database.binary_copy import pack_rows
from labelmill.core.database.dialects import dialect_named, dialect_of
from labelmill.core.database.tables import LockRow

_COLUMNS = ("name", "token", "until")
_ROWS = [("a", "äöü", 0.1 + 0.2), ("b", None, -1.5), ("c", 'quo"te \\n', 1e300)]


def _locks(engine: Engine) -> list[tuple[str, str | None, float]]:
    with reading(engine) as connection:
        rows = connection.execute(select(LockRow.name, LockRow.lease_token, LockRow.lease_until).order_by(LockRow.name))
        return [(row.name, row.token, row.until) for row in rows]


def test_many_rows_are_inserted_as_they_are(engine: Engine) -> None:
    with writing(engine) as connection:
        dialect_of(connection).bulk_insert(connection, "locks", _COLUMNS, iter(_ROWS))
    assert _locks(engine) == _ROWS


def test_rows_packed_for_copy_are_those_that_bulk_insert_writes(engine: Engine) -> None:
    rows = [(7, 1, 0, "id 1"), (7, 2, 0, None), (7, 3, 1, "日本")]
    with writing(engine) as connection:
        dialect = dialect_of(connection)
        columns = ("batch_no", "row", "first_row", "external_id")
        if dialect.copies_binary:
            numbers = [(">i8", 7), (">i8", np.array([1, 2, 3])), (">i8", np.array([0, 0, 1]))]
            packed = pack_rows(3, numbers, ["id 1", None, "日本"], fields=4)
            dialect.copy_binary(connection, "duplicate_rows", columns, [packed], 2)
        else:
            with pytest.raises(NotImplementedError):
                dialect.copy_binary(connection, "duplicate_rows", columns, [], 0)
            dialect.bulk_insert(connection, "duplicate_rows", columns, rows)
    with reading(engine) as connection:
        found = connection.execute(
            text("SELECT batch_no, row, first_row, external_id FROM duplicate_rows ORDER BY row")
        )
        assert [tuple(row) for row in found] == rows


def test_a_statement_with_several_parameter_sets_gives_a_row_or_none_for_each(engine: Engine) -> None:
    statement = (
        update(LockRow)
        .where(LockRow.name == bindparam("of"))
        .values(lease_until=LockRow.lease_until * 2)
        .returning(LockRow.lease_until)
    )
    with writing(engine) as connection:
        dialect_of(connection).bulk_insert(connection, "locks", _COLUMNS, [("a", None, 1.0), ("b", None, 2.0)])
        rows = dialect_of(connection).rows_at_once(connection, statement, [{"of": "b"}, {"of": "none"}, {"of": "a"}])
        (alone,) = dialect_of(connection).rows_at_once(connection, statement, [{"of": "a"}])
    assert [row and row[0] for row in rows] == [4.0, None, 2.0]
    assert alone[0] == 4.0


def test_a_statement_runs_as_it_is_written(engine: Engine) -> None:
    with writing(engine) as connection:
        dialect = dialect_of(connection)
        insert = "INSERT INTO locks (name, token, until) VALUES (%(name)s, %(token)s, %(until)s)"
        assert dialect.execute_raw(connection, insert, {"name": "a", "token": "100%", "until": 2.5}) == []
        row = dialect.execute_raw(connection, "SELECT token, until FROM locks WHERE name = %(name)s", {"name": "a"})
    assert [tuple(one) for one in row] == [("100%", 2.5)]


@pytest.mark.parametrize("index", [None, ["name"]])
def test_a_row_that_is_there_is_left_alone(engine: Engine, index: list[str] | None) -> None:
    with writing(engine) as connection:
        insert = dialect_of(connection).insert_or_ignore(LockRow, index=index)
        connection.execute(insert, [{"name": "a", "lease_token": "first", "lease_until": 1.0}])
        again = {"name": "a", "lease_token": "second", "lease_until": 2.0}
        connection.execute(insert, [again, {"name": "b", "lease_token": None, "lease_until": 3.0}])
    assert _locks(engine) == [("a", "first", 1.0), ("b", None, 3.0)]


def test_the_clock_gives_seconds_since_1970(engine: Engine) -> None:
    with reading(engine) as connection:
        first = connection.scalar(select(db_now()))
    with reading(engine) as connection:
        second = connection.scalar(select(db_now()))
    assert first is not None
    assert second is not None
    assert 1.7e9 < first <= second < first + 60


def test_a_held_name_and_a_right_to_upgrade_end_with_the_transaction(engine: Engine) -> None:
    for _ in range(2):
        with writing(engine) as connection:
            lock_name(connection, "model", "intents")
            assert dialect_of(connection).may_upgrade(connection)


def test_each_value_chosen_is_that_of_the_dialect(engine: Engine) -> None:
    assert dialect_of(engine).choose(sqlite="sqlite", postgres="postgresql") == engine.dialect.name


def test_a_server_tells_what_it_is_and_whether_anything_is_wrong_with_it(engine: Engine) -> None:
    with reading(engine) as connection:
        dialect = dialect_of(connection)
        facts, connections = dialect.server_facts(connection), dialect.connections(connection)
    assert re.match(r"(SQLite 3|PostgreSQL \d+)\.[\d.]+.* answers", facts.summary)
    assert facts.remedy is None
    assert (connections is None) is dialect.serves_one_machine
    assert not dialect.is_locked(engine, 0.1)
    dialect.shorten_log(engine)


def test_an_engine_knows_whether_its_database_is_a_file(database_url: str) -> None:
    engine = connect(database_url)
    file = dialect_of(engine).file_of(engine.url)
    assert (file is not None) is dialect_of(engine).serves_one_machine
    engine.dispose()


def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(InvalidInput, match="must be SQLite or PostgreSQL, not mysql"):
        dialect_named("mysql")


def test_only_the_dialects_ask_which_database_it_is() -> None:
    asks = re.compile(r"dialect\.name|get_backend_name\(\) *==|sqlalchemy\.dialects")
    folders = [Path(package.__file__ or "").parent for package in (labelmill, labelmill_worker)]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    others = [file for file in files if {"dialects", "migrations"}.isdisjoint(file.parts)]
    assert len(files) > len(others) > 100
    assert [file.name for file in others if asks.search(file.read_text())] == []
