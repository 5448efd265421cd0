"""A worker whose batches run in Mistral's Batch API, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from remote_mill import RemoteMill
from sqlalchemy.engine import Engine

from labelmill_worker.inference.batch_mode import creation


@pytest.fixture
def mill(engine: Engine, redis_url: str, tmp_path: Path) -> Iterator[RemoteMill]:
    made = RemoteMill(engine, redis_url, tmp_path / "data")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job in memory is listed as soon as it is made."""
    monkeypatch.setattr(creation, "LISTED_AFTER_S", 0.0)
