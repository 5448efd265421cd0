"""What a reader's library or a database raises in the middle of a submission."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from asked import submit_batch
from sqlalchemy import insert, select
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import InvalidInput
from labelmill.core.chunks.writer import BatchWriter
from labelmill.core.database import connect, reading, writing
from labelmill.core.database.tables import BatchRow, EventRow
from labelmill.core.readers import BadRow, read_rows
from labelmill.core.readers.formats import parquet_batches
from labelmill.services.jobs.documents import status_document


class Quiet:
    def send(self, *_: Any, **__: Any) -> None:
        pass


@pytest.fixture
def far_dates(tmp_path: Path) -> Path:
    """Three rows, of which the second is of the year 10000 or later."""
    path = tmp_path / "far.parquet"
    seconds = pa.array([0, 400_000_000_000, 60], pa.int64()).cast(pa.timestamp("s"))
    pq.write_table(pa.table({"text": ["one", "two", "three"], "when": seconds}), path)
    return path


def submit(engine: Engine, source: Path, **options: Any) -> str:
    return submit_batch(engine, Quiet(), **{"source": str(source), "model": "ft:x"} | options)


def test_a_date_beyond_the_year_9999_makes_a_bad_row(engine: Engine, far_dates: Path) -> None:
    with pytest.raises(InvalidInput, match=r"far\.parquet:2: 'when' is not readable \(.*\), not a text"):
        submit(engine, far_dates, text="when")
    batch_id = submit(engine, far_dates, text="when", on_bad_row="skip")
    with reading(engine) as connection:
        document = status_document(connection, batch_id)
    assert (document["rows"]["submitted"], document["skipped"]) == (2, 1)


def test_nobody_minds_such_a_date_in_a_column_that_is_not_read(engine: Engine, far_dates: Path) -> None:
    submit(engine, far_dates)


def test_such_a_row_is_told_apart_where_whole_rows_are_read(far_dates: Path) -> None:
    bad: list[BadRow] = []
    rows = list(read_rows([far_dates], columns=["text", "when"], on_bad_row=bad.append))
    assert [row.values["text"] for row in rows] == ["one", "two", "three"]
    assert rows[0].values["when"] == datetime(1970, 1, 1)  # noqa: DTZ001 - Parquet's own, without a zone


@pytest.mark.parametrize("fault", [pa.ArrowNotImplementedError("no such codec"), RuntimeError("odd"), KeyError("x")])
def test_whatever_a_library_raises_is_one_sentence_about_the_file(
    engine: Engine, far_dates: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(_: Any) -> Any:
        raise fault

    monkeypatch.setattr(parquet_batches, "values_of", fail)
    with pytest.raises(InvalidInput, match=r"^far\.parquet (cannot be read|is damaged): "):
        submit(engine, far_dates)
    with reading(engine) as connection:
        assert connection.scalars(select(BatchRow.id)).all() == []


@pytest.mark.postgres
def test_what_the_database_refuses_ends_the_batch_and_is_said_in_one_sentence(
    postgres_url: str, far_dates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite keeps whatever it is given."""
    engine = connect(postgres_url)

    def write_what_no_database_keeps(_: BatchWriter) -> None:
        with writing(engine) as connection:
            connection.execute(insert(EventRow).values(job_id="x", message="m", state="s" * 1_000))

    monkeypatch.setattr(BatchWriter, "finish", write_what_no_database_keeps)
    with pytest.raises(InvalidInput, match="the database cannot keep what was submitted: value too long"):
        submit(engine, far_dates)
    with reading(engine) as connection:
        assert connection.scalars(select(BatchRow.state)).all() == ["failed"]
    engine.dispose()
