"""Results of an ended job that cannot be downloaded: they are paid for, so they are waited for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mill import some_texts
from remote_mill import RemoteMill
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import RateLimited, RemoteUnavailable
from labelmill_worker.inference.batch_mode import steps


@pytest.fixture
def mill(engine: Engine, redis_url: str, tmp_path: Path) -> Iterator[RemoteMill]:
    made = RemoteMill(engine, redis_url, tmp_path)
    yield made
    made.close()


AWAY = RemoteUnavailable("nobody answers")
LIMITED = RateLimited("Mistral asks for fewer requests")


def away_for(mill: RemoteMill, downloads: int, monkeypatch: pytest.MonkeyPatch, error: Exception = AWAY) -> None:
    """So many downloads of results fail."""
    whole, left = mill.jobs.results, [downloads]

    def results(file_id: str) -> Any:
        if left[0]:
            left[0] -= 1
            raise error
        yield from whole(file_id)

    monkeypatch.setattr(mill.jobs, "results", results)


def test_an_outage_after_a_jobs_end_costs_no_second_payment(mill: RemoteMill, monkeypatch: pytest.MonkeyPatch) -> None:
    away_for(mill, 12, monkeypatch)
    texts = some_texts(60)
    assert mill.run(mill.submit(texts))["rows"]["labelled"] == 60
    assert mill.memory.billed == Counter(texts)
    assert len(mill.jobs.created) == 1


def test_results_that_stay_out_of_reach_are_asked_for_again(mill: RemoteMill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "READING_PATIENCE_S", 0.0)
    away_for(mill, 6, monkeypatch)
    texts = some_texts(60)
    assert mill.run(mill.submit(texts))["rows"]["labelled"] == 60
    assert len(mill.jobs.created) == 2


def test_results_that_only_the_rate_limit_withholds_are_waited_for_longer(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "READING_PATIENCE_S", 0.0)
    away_for(mill, 12, monkeypatch, LIMITED)
    assert mill.run(mill.submit(some_texts(60)))["rows"]["labelled"] == 60
    assert len(mill.jobs.created) == 1
    assert [row.failed_reads for row in mill.remote()] == [0]


def test_results_that_the_rate_limit_withholds_for_a_day_are_asked_for_again(
    mill: RemoteMill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "LIMITED_READING_PATIENCE_S", 0.0)
    away_for(mill, 1, monkeypatch, LIMITED)
    assert mill.run(mill.submit(some_texts(60)))["rows"]["labelled"] == 60
    assert len(mill.jobs.created) == 2
