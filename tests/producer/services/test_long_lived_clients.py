"""A client that lives through an upgrade of the tables submits nothing more."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from labelmill.client import Client
from labelmill.contracts.errors import DatabaseNewer
from labelmill.core.database import writing
from labelmill.core.settings import load_settings
from labelmill.services import context as module


def test_a_client_notices_that_the_tables_became_newer(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TABLES_S", 0.0)
    source = tmp_path / "texts.jsonl"
    source.write_text('{"text": "a"}\n')
    with Client(load_settings(database_url=database_url, broker_url=redis_url)) as client:
        client.classify(str(source), "ft:classifier:x")
        with writing(client.context.engine) as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(DatabaseNewer, match="upgrade this one"):
            client.classify(str(source), "ft:classifier:x")
        assert len(client.jobs()) == 1
