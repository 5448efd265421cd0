"""`-o` onto a file that is read: refused before anything is written."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import insert, select
from sqlalchemy.engine import Engine

from labelmill.cli.classify import classify
from labelmill.cli.context import Flags, remember_flags
from labelmill.client import Client
from labelmill.contracts.errors import InvalidInput
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, utc_now
from labelmill.core.settings import load_settings
from labelmill.services.models import resolve_model
from labelmill.services.results.saving import OutputOptions, SaveRequest, save_results

ROWS = '{"text": "a"}\n'


@pytest.fixture
def source(database_url: str) -> Iterator[Path]:
    path = Path("rows.jsonl")
    path.write_text(ROWS)
    Path("soft.jsonl").symlink_to(path)
    Path("hard.jsonl").hardlink_to(path)
    with ExitStack() as at_the_end:
        remember_flags(Flags(database_url=database_url, broker_url="redis://127.0.0.1:1/0"), at_the_end)
        yield path
    remember_flags(Flags(), ExitStack())


@pytest.mark.parametrize("output", ["rows.jsonl", "./rows.jsonl", "soft.jsonl", "hard.jsonl", "ABSOLUTE"])
@pytest.mark.parametrize("given", ["rows.jsonl", "soft.jsonl", "ro*.jsonl", "-"])
def test_classify_refuses_to_write_onto_its_source(
    engine: Engine, source: Path, monkeypatch: pytest.MonkeyPatch, output: str, given: str
) -> None:
    with source.open("rb") as stdin:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin))
        with pytest.raises(InvalidInput, match="is the source itself"):
            classify(given, "ft:x", wait=True, output=output.replace("ABSOLUTE", str(source.absolute())))
        sys.stdin.detach()  # type: ignore[attr-defined]
    assert source.read_text() == ROWS
    with reading(engine) as connection:
        assert connection.execute(select(BatchRow.id)).all() == []


@pytest.mark.parametrize("keep", [(), ("text",)])
@pytest.mark.parametrize("output", ["rows.jsonl", "soft.jsonl", "hard.jsonl"])
def test_results_refuses_to_write_onto_the_source_of_its_batch(
    engine: Engine, database_url: str, source: Path, output: str, keep: tuple[str, ...]
) -> None:
    with writing(engine) as connection:
        model = resolve_model(connection, "ft:x").no
        connection.execute(
            insert(BatchRow).values(
                id="batch_1",
                state="completed",
                model_no=model,
                model_ref="ft:x",
                options={"source": str(source), "text": "text"},
                created_at=utc_now(),
            )
        )
    client = Client(load_settings(database_url=database_url))
    with pytest.raises(InvalidInput, match="is the source itself"):
        save_results(client.context, SaveRequest("batch_1", Path(output), OutputOptions(keep=keep)))
    assert source.read_text() == ROWS
    save_results(client.context, SaveRequest("batch_1", Path("other.jsonl")))
    client.close()
