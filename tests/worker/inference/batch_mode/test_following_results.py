"""Who follows the results of a batch gets each chunk's as soon as a batch job has brought them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest
from mill import some_texts
from mistral_answers import label_of
from remote_mill import RemoteMill

from labelmill.services.jobs.actions import cancel
from labelmill.services.jobs.requests import JobRequest
from labelmill.services.results.reading import read_results
from labelmill_worker.inference.batch_mode import packing


def test_rows_come_in_order_while_later_jobs_still_run(mill: RemoteMill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_REQUESTS", 5)  # a job for each chunk
    texts = [*some_texts(120), *some_texts(10), ""]
    batch = mill.submit(texts)
    following = read_results(mill.engine, batch, follow=True)
    with ThreadPoolExecutor(1) as reader:
        first = reader.submit(lambda: list(islice(following, 50)))
        mill.until(lambda: bool(mill.remote()) and mill.remote()[0].step == "done", batch)
        mill.jobs.statuses = ["RUNNING"] * 3 + ["SUCCESS"]
        early = first.result(timeout=20)
        assert mill.status(batch)["state"] == "running"
        rest = reader.submit(lambda: list(following))
        assert mill.run(batch)["rows"]["labelled"] == 130
        rows = early + rest.result(timeout=20)
    assert [row["row"] for row in rows] == list(range(131))
    assert [row["predictions"]["intent"]["label"] for row in rows[:130]] == [label_of(text) for text in texts[:130]]
    assert rows[130]["error"]["code"] == "empty_text"


def test_a_cancelled_batch_ends_the_following(mill: RemoteMill) -> None:
    mill.jobs.statuses, mill.jobs.answered_share = ["RUNNING"] * 1_000, 0.5
    batch = mill.submit(some_texts(200))
    with ThreadPoolExecutor(1) as reader:
        rows = reader.submit(lambda: list(read_results(mill.engine, batch, follow=True)))
        mill.until_step(batch, "waiting")
        cancel(mill.context, JobRequest(batch))
        assert mill.run(batch)["state"] == "cancelled"
        assert len(rows.result(timeout=20)) == 100
