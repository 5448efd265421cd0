"""Batches that run in Mistral's Batch API, step by step in this process: every row is answered once and billed once,
and nothing is sent in realtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mill import some_texts
from mistral_answers import LABELS, first_times, label_of, refuse_texts_with, vector_of
from remote_mill import RemoteMill
from sqlalchemy import insert, select, update

from labelmill.contracts.errors import RemoteUnavailable
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import ChunkRow, EventRow, LedgerRow, ModelRow, ModelTargetRow, RemoteBatchRow
from labelmill.services.jobs.actions import cancel
from labelmill.services.jobs.requests import JobRequest, RetryRequest
from labelmill.services.jobs.retrying import retry
from labelmill_worker.inference.batch_mode import packing, verdicts
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.prompt import answer_schema, system_message

SCHEMA = LabelSchema((Target("intent", tuple(sorted(LABELS))),))
PROMPT = {"system": system_message(SCHEMA, {}), "answer_schema": answer_schema(SCHEMA)}


def _assert_all_labelled(mill: RemoteMill, batch: str, texts: list[str]) -> None:
    assert mill.predictions(batch) == {row: label_of(text) for row, text in enumerate(texts)}


def _model(mill: RemoteMill, name: str, method: str, **values: Any) -> str:
    columns = {"version": 1, "promoted": True, "remote_model": "m", "label_schema": SCHEMA.to_json()} | values
    with writing(mill.engine) as connection:
        row = insert(ModelRow).values(name=name, method=method, **columns).returning(ModelRow.no)
        key = connection.execute(row).scalar_one()
        connection.execute(insert(ModelTargetRow).values(model_no=key, target=0, name="intent"))
    return name


def _nearest_prompt(mill: RemoteMill) -> str:
    rows = [{"text": text, "labels": {"intent": label_of(text)}} for text in some_texts(8)]
    pool = ExamplePool.of(SCHEMA, rows, np.array([vector_of(row["text"]) for row in rows], np.float32))
    sha256 = pool.save(mill.resources.storage, "models/pool.zip")
    recipe = PROMPT | {"embedding_model": "e", "shots": 1, "file": "models/pool.zip", "sha256": sha256}
    return _model(mill, "near", "prompt", recipe=recipe)


def test_every_row_is_answered_once_and_billed_once(mill: RemoteMill) -> None:
    texts = some_texts(250)
    batch = mill.submit(texts)
    status = mill.run(batch)
    assert status["state"] == "completed"
    assert status["rows"]["labelled"] == 250
    _assert_all_labelled(mill, batch, texts)
    assert mill.memory.billed == Counter(texts)
    assert len(mill.jobs.created) == 1
    assert status["requests"] == 25
    assert status["remote_jobs"] == [{"id": mill.jobs.created[0].id, "status": "SUCCESS", "rows": 250}]
    assert not mill.jobs.files, "files are left at Mistral"


def test_a_large_batch_goes_in_files_of_many_jobs(mill: RemoteMill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_INLINE_REQUESTS", 1)
    monkeypatch.setattr(packing, "MAX_REQUESTS", 12)
    texts = [*some_texts(250), *some_texts(30), ""]
    batch = mill.submit(texts)
    status = mill.run(batch)
    assert status["rows"] == {
        "submitted": 281,
        "labelled": 280,
        "abstained": 0,
        "failed": 1,
        "cancelled": 0,
        "pending": 0,
    }
    assert [job["rows"] for job in status["remote_jobs"]] == [100, 100, 50]
    assert mill.memory.billed == Counter(set(texts) - {""})
    assert status["requests"] == 25
    assert not mill.jobs.files
    assert not list((Path(mill.settings.data_dir) / "remote_batches").iterdir()), "files are left here"


def test_prompts_are_sent_one_text_a_line(mill: RemoteMill) -> None:
    texts = some_texts(60)
    batch = mill.submit(texts, model=_model(mill, "prompted", "prompt", recipe=PROMPT))
    status = mill.run(batch)
    _assert_all_labelled(mill, batch, texts)
    assert status["requests"] == 60
    with reading(mill.engine) as connection:
        paid = connection.execute(select(LedgerRow.mode, LedgerRow.requests, LedgerRow.input_tokens)).all()
    assert {line.mode for line in paid} == {"batch"}
    assert sum(line.requests for line in paid) == 60
    assert status["tokens"] >= sum(line.input_tokens for line in paid) > 0


def test_chats_are_classified(mill: RemoteMill) -> None:
    texts = some_texts(30)
    batch = mill.submit(texts, chats=True)
    mill.run(batch)
    _assert_all_labelled(mill, batch, texts)
    assert {job.endpoint for job in mill.jobs.created} == {"/v1/chat/classifications"}


def test_vectors_that_prompts_need_are_a_job_before(mill: RemoteMill) -> None:
    texts = some_texts(60)
    batch = mill.submit(texts, model=_nearest_prompt(mill))
    status = mill.run(batch)
    assert status["state"] == "completed"
    _assert_all_labelled(mill, batch, texts)
    assert [job.endpoint for job in mill.jobs.created] == ["/v1/embeddings", "/v1/chat/completions"]
    assert mill.memory.billed == Counter(texts) + Counter(texts)
    assert status["requests"] == mill.memory.requests
    again = mill.submit(texts, model="near")
    mill.run(again)
    assert [job.endpoint for job in mill.jobs.created[2:]] == ["/v1/chat/completions"], "vectors are kept"


def test_a_refused_text_fails_alone(mill: RemoteMill) -> None:
    texts = [*some_texts(60), "a poison text"]
    mill.memory.faults = [refuse_texts_with("poison")]
    batch = mill.submit(texts)
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"], status["rows"]["failed"]) == ("completed", 60, 1)
    assert mill.errors(batch) == {60: "request_refused"}
    assert mill.memory.billed == Counter(some_texts(60))


def _lists(texts: list[str], body: dict[str, Any]) -> Any:
    return refuse_texts_with("text")(texts, body) if isinstance(body["input"], list) else None


def test_an_endpoint_that_refuses_lists_gets_single_texts_from_then_on(mill: RemoteMill) -> None:
    mill.memory.faults = [_lists]
    texts = some_texts(120)
    batch = mill.submit(texts)
    status = mill.run(batch)
    assert status["state"] == "completed"
    _assert_all_labelled(mill, batch, texts)
    assert mill.memory.billed == Counter(texts)
    mill.memory.requests = 0
    others = [f"another {text}" for text in some_texts(40)]
    mill.run(mill.submit(others))
    assert mill.memory.requests == 40


@pytest.mark.parametrize("count", [1, 60])
def test_a_batch_that_is_refused_as_a_whole_stops_with_the_reason(mill: RemoteMill, count: int) -> None:
    mill.memory.faults = [refuse_texts_with("text")]
    batch = mill.submit(some_texts(count))
    status = mill.run(batch)
    if count == 1:
        assert (status["state"], status["rows"]["failed"]) == ("completed", 1)
        return
    assert (status["state"], status["error_code"]) == ("failed", "request_refused")
    assert status["rows"]["failed"] == 0
    assert len(mill.jobs.created) == 2, "lists once, then single texts once"


def test_lines_that_failed_for_now_are_sent_again_and_at_last_fail(mill: RemoteMill) -> None:
    texts = [*some_texts(40), "stubborn text"]
    batch = mill.submit(texts, model=_model(mill, "prompted", "prompt", recipe=PROMPT))
    mill.memory.faults = [first_times(7, lambda _: web_error(503)), refuse_texts_with("stubborn", 500)]
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"], status["rows"]["failed"]) == ("completed", 40, 1)
    assert mill.errors(batch) == {40: "remote_unavailable"}
    assert mill.memory.billed == Counter(some_texts(40))
    mill.memory.faults = []
    retry(mill.context, RetryRequest(batch))
    assert mill.run(batch)["rows"]["labelled"] == 41


def web_error(status: int) -> Any:
    from aiohttp import web  # noqa: PLC0415 - of one test

    return web.Response(status=status, body=b'{"message":"not now"}')


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: lines[: len(lines) // 2],
        lambda lines: [*lines, *lines[:5]],
        lambda lines: [{**line, "custom_id": None} if number % 3 else line for number, line in enumerate(lines)],
        lambda lines: [*lines, {**lines[0], "custom_id": "99-0"}, {**lines[0], "custom_id": "0-99999"}],
    ],
    ids=["missing", "repeated", "nameless", "foreign"],
)
def test_results_may_be_incomplete_or_repeated(
    mill: RemoteMill, spoil: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> None:
    texts = some_texts(200)
    mill.jobs.spoil_output = spoil
    batch = mill.submit(texts)
    mill.until_step(batch, "done")
    mill.jobs.spoil_output = lambda lines: lines
    assert mill.run(batch)["rows"]["labelled"] == 200
    _assert_all_labelled(mill, batch, texts)


@pytest.mark.parametrize("status", ["TIMEOUT_EXCEEDED", "FAILED", "CANCELLED"])
def test_what_a_job_that_broke_off_had_answered_is_kept(mill: RemoteMill, status: str) -> None:
    texts = some_texts(200)
    mill.jobs.statuses, mill.jobs.answered_share = ["RUNNING", status], 0.5
    batch = mill.submit(texts)
    mill.until_step(batch, "done")
    assert mill.status(batch)["rows"]["labelled"] == 100
    mill.jobs.statuses, mill.jobs.answered_share = ["SUCCESS"], 1.0
    assert mill.run(batch)["rows"]["labelled"] == 200
    assert mill.memory.billed == Counter(texts)


def test_jobs_that_never_answer_anything_are_not_made_for_ever(mill: RemoteMill) -> None:
    mill.jobs.statuses, mill.jobs.answered_share = ["TIMEOUT_EXCEEDED"], 0.0
    status = mill.run(mill.submit(some_texts(20)))
    assert (status["state"], status["rows"]["failed"]) == ("completed", 20)
    assert len(mill.jobs.created) == verdicts.MAX_TRIES


def test_without_billing_the_batch_fails_and_says_what_to_do(mill: RemoteMill) -> None:
    mill.jobs.has_billing = False
    status = mill.run(mill.submit(some_texts(20)))
    assert (status["state"], status["error_code"]) == ("failed", "billing_required")
    assert status["rows"]["pending"] == 20
    mill.jobs.has_billing = True
    retry(mill.context, RetryRequest(status["id"]))
    assert mill.run(status["id"])["rows"]["labelled"] == 20


@pytest.mark.parametrize("lost", ["create", "upload"])
def test_a_lost_answer_makes_no_second_job_and_no_second_file(
    mill: RemoteMill, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MAX_INLINE_REQUESTS", 0)
    lose = [lost]

    def after_call(name: str) -> None:
        if name in lose:
            lose.remove(name)
            raise RemoteUnavailable("the answer was lost")

    mill.memory.after_call = after_call
    texts = some_texts(60)
    assert mill.run(mill.submit(texts))["rows"]["labelled"] == 60
    assert len(mill.jobs.created) == 1
    assert mill.memory.billed == Counter(texts)
    assert not mill.jobs.files


def test_cancelling_keeps_what_the_job_had_answered(mill: RemoteMill) -> None:
    texts = some_texts(200)
    mill.jobs.statuses, mill.jobs.answered_share = ["RUNNING"] * 1000, 0.5
    batch = mill.submit(texts)
    mill.until_step(batch, "waiting")
    waiting = mill.status(batch)["waiting_for"]
    assert waiting["reason"] == "remote_batch"
    mill.waiting.clear()
    assert cancel(mill.context, JobRequest(batch)).state == "running"
    assert len(mill.waiting) == 1, "a worker stops the job at once"
    assert mill.status(batch)["progress"]["phase"] == "cancelling"
    status = mill.run(batch)
    assert status["state"] == "cancelled"
    assert (status["rows"]["labelled"], status["rows"]["cancelled"]) == (100, 100)
    assert not mill.jobs.files


def test_a_batch_that_nothing_was_sent_of_is_cancelled_at_once(mill: RemoteMill) -> None:
    batch = mill.submit(some_texts(20))
    with writing(mill.engine) as connection:
        connection.execute(update(RemoteBatchRow).values(step="done"))
    assert cancel(mill.context, JobRequest(batch)).state == "cancelled"


class _Killed(BaseException):
    """The worker dies here."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["upload", "create", "get", "results", "delete_file"])
def test_a_worker_that_is_killed_at_a_call_costs_nothing_twice(
    mill: RemoteMill, name: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MAX_INLINE_REQUESTS", 0)
    texts = some_texts(120)
    batch = mill.submit(texts)
    deaths = [name]

    def die(called: str) -> None:
        if called in deaths:
            deaths.remove(called)
            raise _Killed

    setattr(mill.memory, f"{when}_call", die)
    with pytest.raises(_Killed):
        mill.run(batch)
    _let_leases_run_out(mill)
    status = mill.run(batch)
    assert status["rows"]["labelled"] == 120
    _assert_all_labelled(mill, batch, texts)
    assert mill.memory.billed == Counter(texts)
    assert status["requests"] == 12
    assert len(mill.jobs.created) == 1
    assert not mill.jobs.files


def _let_leases_run_out(mill: RemoteMill) -> None:
    with writing(mill.engine) as connection:
        for table in (RemoteBatchRow, ChunkRow):
            connection.execute(update(table).where(table.lease_until.is_not(None)).values(lease_until=1.0))


@pytest.mark.parametrize("after_lines", [0, 3, 11])
def test_results_are_read_again_from_the_start_after_a_download_that_broke_off(
    mill: RemoteMill, after_lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = some_texts(120)
    whole = mill.jobs.results
    broken = [1, 2]

    def results(file_id: str) -> Any:
        lines = list(whole(file_id))
        if broken:
            broken.pop()
            yield from lines[:after_lines]
            raise RemoteUnavailable("the download broke off")
        yield from lines

    monkeypatch.setattr(mill.jobs, "results", results)
    status = mill.run(mill.submit(texts))
    assert (status["rows"]["labelled"], status["requests"]) == (120, 12)
    assert mill.memory.billed == Counter(texts)


def test_answers_of_earlier_batches_are_reused(mill: RemoteMill) -> None:
    texts = some_texts(60)
    mill.run(mill.submit(texts))
    status = mill.run(mill.submit([*texts, "a new text"], cache=True))
    assert (status["rows"]["labelled"], status["cached"]) == (61, 60)
    assert mill.memory.billed == Counter([*texts, "a new text"])


def test_mistrals_limit_of_pending_requests_is_kept(mill: RemoteMill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelmill_worker.store.remote_batches.MAX_PENDING_REQUESTS", 10)
    monkeypatch.setattr(packing, "MAX_REQUESTS", 6)
    texts = some_texts(240)
    batch = mill.submit(texts, chunk_texts=20)
    most = 0

    def after_call(name: str) -> None:
        nonlocal most
        if name == "create":
            pending = [job for job in mill.jobs.jobs.values() if not job.has_ended]
            most = max(most, sum(len(mill.jobs._calls[job.id]) for job in pending))

    mill.memory.after_call = after_call
    assert mill.run(batch)["rows"]["labelled"] == 240
    assert most == 6
    assert len(mill.jobs.created) == 4


def test_a_batchs_history_tells_of_its_jobs(mill: RemoteMill) -> None:
    batch = mill.submit(some_texts(20))
    mill.run(batch)
    with reading(mill.engine) as connection:
        told = list(connection.scalars(select(EventRow.message).where(EventRow.job_id == batch).order_by(EventRow.no)))
    assert any("made at Mistral: 2 requests for 20 texts" in (message or "") for message in told)
    assert any("ended SUCCESS" in (message or "") for message in told)
