"""A PostgreSQL database that another test used is as good as a new one."""

from __future__ import annotations

import psycopg
import pytest
from postgres_databases import PostgresDatabases
from registered import add_dataset_and_model

from labelmill.core.database import connect, writing
from labelmill_ops.embedded_postgres import EmbeddedPostgres

pytestmark = pytest.mark.postgres


def test_rows_and_numbers_of_the_test_before_are_gone(
    postgres_server: EmbeddedPostgres, postgres_databases: PostgresDatabases
) -> None:
    def numbers_of_new_rows() -> list[int]:
        with postgres_databases.lent() as name:
            names.append(name)
            engine = connect(postgres_server.url(name))
            with writing(engine) as connection:
                add_dataset_and_model(connection)
            with engine.connect() as connection:
                numbers = connection.exec_driver_sql("SELECT no FROM datasets UNION ALL SELECT no FROM models")
                found = [number for (number,) in numbers]
            engine.dispose()
            return found

    names: list[str] = []
    assert numbers_of_new_rows() == numbers_of_new_rows() != []
    assert names[0] == names[1]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE batches ADD COLUMN more int",
        "ALTER TABLE batches ALTER COLUMN state DROP NOT NULL",
        "CREATE INDEX more ON batches (state)",
        "DROP TABLE vectors",
        "GRANT SELECT ON batches TO PUBLIC",
        "CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "UPDATE alembic_version SET version_num = 'older'",
        "DELETE FROM alembic_version",
        "ANALYZE",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''1MB''', current_database()); END $$",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 3', current_database()); END $$",
    ],
)
def test_a_database_of_which_more_than_rows_was_changed_is_not_used_again(
    change: str, postgres_server: EmbeddedPostgres, postgres_databases: PostgresDatabases
) -> None:
    with postgres_databases.lent() as changed, psycopg.connect(postgres_server.url(changed)) as connection:
        connection.execute(change.encode())
    with postgres_databases.lent() as other:
        assert other != changed


def test_a_connection_that_a_test_left_open_is_ended(
    postgres_server: EmbeddedPostgres, postgres_databases: PostgresDatabases
) -> None:
    with postgres_databases.lent() as name:
        left_open = psycopg.connect(postgres_server.url(name))
        left_open.execute("SELECT * FROM batches FOR UPDATE")
    with postgres_databases.lent() as again:
        assert again == name
        with pytest.raises(psycopg.OperationalError):
            left_open.execute("SELECT 1")
    left_open.close()
