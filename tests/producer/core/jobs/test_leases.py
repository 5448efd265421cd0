"""Every table that has leases passes the same tests: one holder at a time, and nothing written by who lost it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.engine import Engine

import labelmill
import labelmill_worker
from labelmill.core.database import MAX_LEASE_S, db_now, reading, writing
from labelmill.core.database.tables import (
    BatchRow,
    ChunkRow,
    DatasetRow,
    EvaluationRow,
    LockRow,
    ModelRow,
    RemoteBatchRow,
    TrainingRow,
)
from labelmill.core.database.tables.base import LeaseColumns
from labelmill.core.jobs import leases

_OF_MODEL = {"model_no": 1, "model_ref": "m"}
_ROWS: dict[type[LeaseColumns], dict[str, Any]] = {
    DatasetRow: {"id": "prep_1", "state": "queued", "name": "d", "spec": {}},
    TrainingRow: {
        "id": "train_1",
        "state": "queued",
        "name": "t",
        "method": "prompt",
        "dataset_id": "d",
        "options": {},
    },
    EvaluationRow: {
        "id": "eval_1",
        "state": "queued",
        **_OF_MODEL,
        "dataset_id": "d",
        "dataset_ref": "d",
        "split": "test",
    },
    ChunkRow: {"batch_no": 1, "number": 0, "state": "claimed", "first_row": 0, "rows": 1, "texts": 1},
    ModelRow: {"no": 1, "name": "m", "version": 1, "method": "factory"},
    LockRow: {"name": "sweep"},
    RemoteBatchRow: {"batch_no": 1, "step": "waiting", "marker": "m", "begun_at": 0.0},
}


@dataclass
class Leasable:
    """One row of a table that has leases, and a column of it that may be written."""

    engine: Engine
    table: type[LeaseColumns]
    mine: ColumnElement[bool]
    other: str

    def claim(self, lease_s: float = 60.0) -> str | None:
        with writing(self.engine) as connection:
            return leases.claim(connection, self.table, self.mine, lease_s=lease_s)

    def write(self, token: str, **values: Any) -> bool:
        with writing(self.engine) as connection:
            return leases.write(connection, self.table, token, self.mine, **values)

    def renew(self, token: str, lease_s: float) -> bool:
        with writing(self.engine) as connection:
            return leases.renew(connection, self.table, token, self.mine, lease_s=lease_s)

    def let_run_out(self, until: Any) -> None:
        with writing(self.engine) as connection:
            connection.execute(update(self.table).where(self.mine).values({self.table.lease_until: until}))

    def left_s(self) -> float:
        with reading(self.engine) as connection:
            found = connection.scalar(select(self.table.lease_until - db_now()).where(self.mine))
        assert found is not None
        return float(found)


@pytest.fixture(params=_ROWS, ids=lambda table: str(table.__tablename__))
def row(request: pytest.FixtureRequest, engine: Engine) -> Leasable:
    table = request.param
    with writing(engine) as connection:
        connection.execute(insert(ModelRow).values(**_ROWS[ModelRow]))
        connection.execute(insert(BatchRow).values(no=1, id="batch_1", state="running", **_OF_MODEL, options={}))
        if table is not ModelRow:
            connection.execute(insert(table).values(**_ROWS[table]))
    key, value = next(iter(_ROWS[table].items()))
    other = "lease_until" if table is LockRow else "attempts"
    return Leasable(engine, table, getattr(table, key) == value, other)


def _tables(parent: type) -> set[type]:
    subclasses = set(parent.__subclasses__())
    return {table for table in subclasses if hasattr(table, "__table__")}.union(*map(_tables, subclasses))


def test_every_table_with_lease_columns_is_tried() -> None:
    assert _tables(LeaseColumns) == set(_ROWS)


def test_one_holds_it_at_a_time(row: Leasable) -> None:
    token = row.claim()
    assert token is not None
    assert row.claim() is None
    assert row.write(token, **{row.other: 7})
    assert not row.write("another's", **{row.other: 8})


def test_a_lease_that_ran_out_is_taken_over_and_its_first_holder_writes_nothing(row: Leasable) -> None:
    first = row.claim()
    assert first is not None
    row.let_run_out(db_now() - 1)
    second = row.claim()
    assert second not in {None, first}
    assert not row.write(first, **{row.other: 7})
    assert not row.renew(first, 60)
    assert row.write(str(second), **{row.other: 7})


def test_a_lease_lasts_as_long_as_it_was_asked_for_and_is_renewed(row: Leasable) -> None:
    token = row.claim(30)
    assert 25 < row.left_s() <= 30
    assert row.renew(str(token), 90)
    assert 85 < row.left_s() <= 90


def test_a_lease_that_was_given_back_is_free(row: Leasable) -> None:
    token = str(row.claim())
    released = {"lease_token": None} if row.table is LockRow else leases.RELEASED
    assert row.write(token, **released)
    assert not row.write(token, **{row.other: 7})
    assert row.claim() is not None


def test_a_lease_from_before_the_clock_was_set_back_is_free(row: Leasable) -> None:
    assert row.claim() is not None
    row.let_run_out(db_now() + MAX_LEASE_S + 60)
    assert row.claim() is not None


def test_no_other_module_writes_the_columns_of_a_lease() -> None:
    """Outside of `core/jobs` nobody sets a token or the end of a lease, but in the row that it adds. The row of a lock
    in which `machines.py` keeps a machine's heartbeat is no lease."""
    writing_them = set()
    for package in (labelmill, labelmill_worker):
        for path in Path(str(package.__file__)).parent.rglob("*.py"):
            if (path.parent.name == "jobs" and path.parent.parent.name == "core") or path.name == "machines.py":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") != "values":
                    continue
                if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value).startswith("insert("):
                    continue
                keys = {keyword.arg for keyword in node.keywords}
                keys |= {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                if keys & {"lease_token", "lease_until"}:
                    writing_them.add(f"{path.name}:{node.lineno}")
    assert writing_them == set()
