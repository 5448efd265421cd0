"""Migrations: make the tables the code expects, once, whoever asks."""

from __future__ import annotations

import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect
from sqlalchemy.engine import Engine

from labelmill.contracts.database import check_tables, connect, current_revision, head_revision, reading, upgrade
from labelmill.contracts.errors import DatabaseOutdated
from labelmill.contracts.tables import Base

_UPGRADE = "import sys; from labelmill.contracts.database import connect, upgrade; upgrade(connect(sys.argv[1]))"


def test_an_upgrade_of_an_upgraded_database_changes_nothing(empty_database_url: str) -> None:
    engine = connect(empty_database_url)
    assert current_revision(engine) is None
    upgrade(engine)
    tables = inspect(engine).get_table_names()
    upgrade(engine)
    assert current_revision(engine) == head_revision()
    assert inspect(engine).get_table_names() == tables
    engine.dispose()


def test_processes_that_upgrade_at_once_all_succeed(empty_database_url: str) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", _UPGRADE, empty_database_url], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert [code for _, code in ended] == [0, 0, 0], ended
    engine = connect(empty_database_url)
    check_tables(engine)
    engine.dispose()


def test_migrated_tables_are_the_ones_in_the_code(engine: Engine) -> None:
    with reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "render_as_batch": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_views_of_analysts_can_be_read(engine: Engine) -> None:
    views = set(inspect(engine).get_view_names())
    assert {"predictions", "row_errors"} <= views | set(inspect(engine).get_table_names())


def test_a_database_without_tables_is_named_as_such(empty_database_url: str) -> None:
    engine = connect(empty_database_url)
    with pytest.raises(DatabaseOutdated, match="labelmill db upgrade"):
        check_tables(engine)
    engine.dispose()
