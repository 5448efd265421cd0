"""SQLite's write-ahead log is cut off when it has grown long."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from labelmill.core.database import connect, reading, writing
from labelmill.core.database.dialects import dialect_of

_A_MEGABYTE = 1 << 20


def test_a_log_that_readers_kept_from_being_reused_is_cut_off_once_they_are_gone(tmp_path: Path) -> None:
    file = tmp_path / "mill.db"
    log = tmp_path / "mill.db-wal"
    engine = connect(f"sqlite:///{file}")
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE notes (body BLOB)"))
    with reading(engine) as reader:
        reader.execute(text("SELECT count(*) FROM notes")).all()
        for _ in range(8):
            with writing(engine) as connection:
                connection.execute(text("INSERT INTO notes VALUES (zeroblob(1048576))"))
        grown = log.stat().st_size
        assert grown > 8 * _A_MEGABYTE
        dialect_of(engine).shorten_log(
            engine, max_bytes=_A_MEGABYTE
        )  # waits for the reader in vain, and says nothing of it
        assert log.stat().st_size == grown
    dialect_of(engine).shorten_log(engine, max_bytes=16 * _A_MEGABYTE)
    assert log.stat().st_size == grown  # short enough
    dialect_of(engine).shorten_log(engine, max_bytes=_A_MEGABYTE)
    assert log.stat().st_size == 0
    with reading(engine) as reader:
        assert reader.scalar(text("SELECT count(*) FROM notes")) == 8
    engine.dispose()
