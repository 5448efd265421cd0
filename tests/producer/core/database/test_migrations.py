"""Migrations: make the tables the code expects, once, whoever asks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import insert, inspect, select, text
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import DatabaseOutdated
from labelmill.core.chunks.codec import decode_repeats
from labelmill.core.chunks.sizes import ChunkSizes
from labelmill.core.chunks.writer import BatchWriter
from labelmill.core.database import (
    check_tables,
    connect,
    current_revision,
    head_revision,
    migrations,
    reading,
    upgrade,
    writing,
)
from labelmill.core.database.tables import (
    PREDICTIONS_VIEW,
    ROW_ERRORS_VIEW,
    Base,
    BatchRow,
    ChunkRepeatsRow,
    DatasetRow,
    EvaluationRow,
    TrainingRow,
    utc_now,
)
from labelmill.services.models import resolve_model

_ADDED_BY_POSTGRESQL = {"any", "array", "character", "in", "text", "varying"}  #: To an index's condition.
_UPGRADE = "import sys; from labelmill.core.database import connect, upgrade; upgrade(connect(sys.argv[1]))"


def test_an_upgrade_of_an_upgraded_database_changes_nothing(empty_database_url: str) -> None:
    engine = connect(empty_database_url)
    assert current_revision(engine) is None
    upgrade(engine)
    tables = inspect(engine).get_table_names()
    upgrade(engine)
    assert current_revision(engine) == head_revision()
    assert inspect(engine).get_table_names() == tables
    engine.dispose()


@pytest.mark.slow
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


def test_migrated_indexes_have_the_conditions_in_the_code(engine: Engine) -> None:
    written = {
        "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql LIKE '% WHERE %'",
        "postgresql": "SELECT indexname, indexdef FROM pg_indexes WHERE indexdef LIKE '% WHERE %'",
    }
    expected = {
        index.name: sorted(re.findall(r"\w+", index.info["where"].lower().replace(" in ", " ")))
        for table in Base.metadata.tables.values()
        for index in table.indexes
        if "where" in index.info
    }
    with reading(engine) as connection:
        found = {
            name: sorted(set(re.findall(r"\w+", definition.rsplit(" WHERE ", 1)[1].lower())) - _ADDED_BY_POSTGRESQL)
            for name, definition in connection.execute(text(written[engine.dialect.name]))
        }
    assert found == expected


@pytest.mark.postgres
def test_postgresql_does_not_compress_what_is_compressed(postgres_url: str) -> None:
    engine = connect(postgres_url)
    kept_as_it_is = "SELECT attrelid::regclass::text FROM pg_attribute WHERE attname = 'data' AND attstorage = 'e'"
    with reading(engine) as connection:
        assert set(connection.scalars(text(kept_as_it_is))) >= {"chunk_inputs", "chunk_repeats"}
    engine.dispose()


def test_rows_repeated_in_batches_of_before_are_counted_by_the_upgrade(engine: Engine) -> None:
    with writing(engine) as connection:
        model = resolve_model(connection, "ft:x").no
        batch = {
            "id": "batch_0000000001",
            "state": "submitting",
            "model_no": model,
            "model_ref": "ft:x",
            "options": {},
            "created_at": utc_now(),
        }
        no = connection.execute(insert(BatchRow).values(batch).returning(BatchRow.no)).scalar_one()
    with BatchWriter(engine, no, "batch_0000000001", sizes=ChunkSizes(4)) as writer:
        writer.add([*"abcdefgh", *"aab", *"hij", "j"])
        writer.finish()
    expected = {0: {0: 2, 1: 1}, 1: {7: 1}, 2: {13: 1}}
    assert _repeats(engine) == expected
    with writing(engine) as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__path__[0])))
        config.attributes["connection"] = connection
        command.downgrade(config, "0009")
    upgrade(engine)
    assert _repeats(engine) == expected


def _repeats(engine: Engine) -> dict[int, dict[int, int]]:
    with reading(engine) as connection:
        found = connection.execute(select(ChunkRepeatsRow.number, ChunkRepeatsRow.data))
        return {number: decode_repeats(data) for number, data in found}


def test_paths_of_before_become_references_whatever_folder_they_began_with(engine: Engine) -> None:
    now = {"created_at": utc_now(), "spec": {}, "name": "d"}
    before = {
        "prep_1": {"train": "/data/datasets/prep_1/train.jsonl", "test": "/data/datasets/prep_1/test.jsonl"},
        "prep_2": {"train": "/home/a b/datasets/old/.labelmill/datasets/prep_1/train.jsonl"},  # repeats prep_1
        "prep_3": {"train": "datasets/prep_3/train.jsonl"},
        "prep_4": {"train": "/somewhere/else.jsonl"},
        "prep_5": None,
    }
    batch = {"state": "completed", "model_ref": "ft:x", "created_at": utc_now()}
    with writing(engine) as connection:
        model = resolve_model(connection, "ft:x").no
        for version, (job_id, files) in enumerate(before.items(), 1):
            row = now | {"id": job_id, "state": "ready", "version": version, "files": files}
            connection.execute(insert(DatasetRow).values(row))
        sources = {
            "batch_e": "/d/datasets/prep_1/test.jsonl",
            "batch_t": "m@1",
            "batch_u": "/d/datasets/prep_1/a.jsonl",
        }
        for job_id, source in sources.items():
            row = batch | {"id": job_id, "model_no": model, "options": {"source": source, "text": "text"}}
            connection.execute(insert(BatchRow).values(row))
        connection.execute(
            insert(EvaluationRow).values(
                id="eval_1",
                state="completed",
                model_no=model,
                model_ref="ft:x",
                split="test",
                dataset_id="prep_1",
                dataset_ref="d@1",
                batch_id="batch_e",
            )
        )
        connection.execute(
            insert(TrainingRow).values(
                id="train_1",
                state="succeeded",
                name="m",
                method="embedding",
                options={},
                dataset_id="prep_1",
                batch_id="batch_t",
            )
        )
    with writing(engine) as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__path__[0])))
        config.attributes["connection"] = connection
        command.downgrade(config, "0011")
    upgrade(engine)
    with reading(engine) as connection:
        files = {row.id: row.files for row in connection.execute(select(DatasetRow.id, DatasetRow.files))}
        options = {row.id: row.options for row in connection.execute(select(BatchRow.id, BatchRow.options))}
    assert files == {
        "prep_1": {"train": "datasets/prep_1/train.jsonl", "test": "datasets/prep_1/test.jsonl"},
        "prep_2": {"train": "datasets/prep_1/train.jsonl"},
        "prep_3": {"train": "datasets/prep_3/train.jsonl"},
        "prep_4": {"train": "/somewhere/else.jsonl"},
        "prep_5": None,
    }
    expected = sources | {"batch_e": "data-folder:datasets/prep_1/test.jsonl"}  # what users wrote stays
    assert {job_id: one["source"] for job_id, one in options.items()} == expected


def test_the_views_of_analysts_can_be_read(engine: Engine) -> None:
    views = set(inspect(engine).get_view_names())
    assert {"predictions", "row_errors"} <= views | set(inspect(engine).get_table_names())


def test_a_database_without_tables_is_named_as_such(empty_database_url: str) -> None:
    engine = connect(empty_database_url)
    with pytest.raises(DatabaseOutdated, match="labelmill db upgrade"):
        check_tables(engine)
    engine.dispose()


def test_the_views_that_migrations_make_are_those_of_the_tables_module(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'fresh.db'}")
    upgrade(engine)
    with reading(engine) as connection:
        made = connection.scalars(text("SELECT sql FROM sqlite_master WHERE type = 'view'"))
        assert {sql.strip() for sql in made} == {PREDICTIONS_VIEW.strip(), ROW_ERRORS_VIEW.strip()}
    engine.dispose()


def test_no_migration_reads_what_the_tables_module_says_now() -> None:
    files = list((Path(migrations.__path__[0]) / "versions").glob("*.py"))
    assert files
    assert [file.name for file in files if "labelmill.core.database.tables" in file.read_text()] == []
