"""Batch jobs of the emulator: what is billed, and every way in which a job and its results can go wrong."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import orjson
import pytest
from emulator_thread import EmulatorThread

from labelmill.contracts.errors import BillingRequired, RemoteFailed, RemoteUnavailable
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_worker.mistral.batch_jobs import SdkBatchJobs
from labelmill_worker.mistral.sdk_requests import SdkRequests
from labelmill_worker.ports.batch_jobs import CANCELLED, SUCCESS, NumberedCall, RemoteBatch, ResultLine
from labelmill_worker.ports.inference import Call, Endpoint

MODEL = "mistral-embed"
ROWS = 20


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorConfig(port=0, batch_queue_s=0.01, batch_run_s=0.02)) as running:
        yield running


@pytest.fixture
def jobs(emulator: EmulatorThread) -> Iterator[SdkBatchJobs]:
    made = SdkBatchJobs(SdkRequests("any", emulator.url, timeout_s=10, sleep=lambda _: None))
    yield made
    arm(emulator)
    made.close()


def arm(emulator: EmulatorThread, *faults: str) -> None:
    httpx2.put(f"{emulator.url}/_control/faults", json={"faults": faults}).raise_for_status()


def create(jobs: SdkBatchJobs, texts_each: int = 2, **metadata: str) -> RemoteBatch:
    calls = [
        NumberedCall(
            str(row),
            Call(Endpoint.EMBEDDINGS, {"model": MODEL, "input": [f"text {row} {n}" for n in range(texts_each)]}),
        )
        for row in range(ROWS)
    ]
    return jobs.create(Endpoint.EMBEDDINGS, MODEL, calls=calls, metadata=metadata, timeout_hours=1)


def until(jobs: SdkBatchJobs, job: RemoteBatch, *statuses: str) -> RemoteBatch:
    deadline = time.monotonic() + 60
    while (now := jobs.get(job.id)).status not in statuses and not (now.has_ended and not statuses):
        assert time.monotonic() < deadline, f"the job stayed {now.status}"
        time.sleep(0.01)
    return now


def lines_of(jobs: SdkBatchJobs, job: RemoteBatch) -> list[ResultLine]:
    return [line for file_id in (job.output_file, job.error_file) if file_id for line in jobs.results(file_id)]


def test_texts_of_jobs_are_billed_apart_from_those_of_realtime_requests(
    emulator: EmulatorThread, jobs: SdkBatchJobs
) -> None:
    before = emulator.stats()
    until(jobs, create(jobs), SUCCESS)
    after = emulator.stats()
    assert after["batches_created"] == before["batches_created"] + 1
    assert after["texts"] == before["texts"] + 2 * ROWS
    grown = {what: after["by_mode"]["batch"][what] - before["by_mode"]["batch"][what] for what in ("requests", "texts")}
    assert grown == {"requests": ROWS, "texts": 2 * ROWS}
    assert after["by_mode"]["batch"]["tokens"] > before["by_mode"]["batch"]["tokens"]
    assert after["by_mode"]["realtime"] == before["by_mode"]["realtime"]


def test_results_come_in_another_order(jobs: SdkBatchJobs) -> None:
    job = until(jobs, create(jobs), SUCCESS)
    named = [line.custom_id for line in lines_of(jobs, job)]
    assert sorted(named, key=lambda name: int(str(name))) == [str(row) for row in range(ROWS)]
    assert named != sorted(named, key=lambda name: int(str(name)))


@pytest.mark.parametrize(
    ("fault", "status"),
    [("batch-expires", "TIMEOUT_EXCEEDED"), ("batch-fails", "FAILED"), ("batch-cancelled", CANCELLED)],
)
def test_a_job_that_ends_early_is_billed_for_what_its_files_hold(
    emulator: EmulatorThread, jobs: SdkBatchJobs, fault: str, status: str
) -> None:
    arm(emulator, f"{fault}:1:0.25")
    before = emulator.stats()["texts"]
    job = until(jobs, create(jobs))
    assert job.status == status
    assert (job.total_requests, job.succeeded_requests) == (ROWS, ROWS // 4)
    assert len(lines_of(jobs, job)) == ROWS // 4
    assert emulator.stats()["texts"] == before + 2 * ROWS // 4


@pytest.mark.parametrize("status", ["QUEUED", "RUNNING"])
def test_a_job_that_is_stuck_ends_when_it_is_cancelled(
    emulator: EmulatorThread, jobs: SdkBatchJobs, status: str
) -> None:
    arm(emulator, f"batch-stuck:1:{status}")
    job = until(jobs, create(jobs), status)
    jobs.cancel(job.id)
    job = until(jobs, job)
    assert job.status == CANCELLED
    assert len(lines_of(jobs, job)) == job.succeeded_requests


def test_a_job_may_stay_in_its_cancellation(emulator: EmulatorThread, jobs: SdkBatchJobs) -> None:
    arm(emulator, "batch-stuck:1:CANCELLATION_REQUESTED")
    job = create(jobs)
    jobs.cancel(job.id)
    for _ in range(5):
        assert jobs.get(job.id).status == "CANCELLATION_REQUESTED"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("parameter", "has_output", "has_errors"),
    [("output", False, True), ("errors", True, False), ("both", False, False)],
)
def test_files_of_results_may_be_missing(
    emulator: EmulatorThread, jobs: SdkBatchJobs, parameter: str, has_output: bool, has_errors: bool
) -> None:
    arm(emulator, f"batch-without-files:1:{parameter}", "line-failedx3:1:429")
    job = until(jobs, create(jobs), SUCCESS)
    assert (job.output_file is not None, job.error_file is not None) == (has_output, has_errors)
    assert len(list(jobs.inline_results(job.id))) == ROWS


def test_files_of_results_may_be_gone(emulator: EmulatorThread, jobs: SdkBatchJobs) -> None:
    arm(emulator, "batch-results-gone")
    job = until(jobs, create(jobs), SUCCESS)
    assert job.output_file
    with pytest.raises(RemoteFailed):
        lines_of(jobs, job)


def test_lines_are_dropped_repeated_or_without_an_id(emulator: EmulatorThread, jobs: SdkBatchJobs) -> None:
    arm(emulator, "line-droppedx3", "line-repeatedx4", "line-anonymousx2")
    before = emulator.stats()["spoiled_texts"]
    job = until(jobs, create(jobs), SUCCESS)
    counted = Counter(line.custom_id for line in lines_of(jobs, job))
    assert counted.pop(None) == 2
    assert Counter(counted.values()) == {1: ROWS - 9, 2: 4}
    assert emulator.stats()["spoiled_texts"] == before + 2 * 5


def test_failed_and_refused_lines_are_not_billed_and_say_why_in_either_form(
    emulator: EmulatorThread, jobs: SdkBatchJobs
) -> None:
    arm(emulator, "line-failedx5:1:503", "line-refusedx5:1:400")
    before = emulator.stats()["texts"]
    job = until(jobs, create(jobs), SUCCESS)
    lines = lines_of(jobs, job)
    assert Counter(line.status for line in lines) == {200: ROWS - 10, 503: 5, 400: 5}
    assert all(line.error for line in lines if line.document is None)
    assert emulator.stats()["texts"] == before + 2 * (ROWS - 10)


def test_lists_may_be_refused_where_single_texts_pass(emulator: EmulatorThread, jobs: SdkBatchJobs) -> None:
    arm(emulator, "batch-lists-refused")
    lists = until(jobs, create(jobs), SUCCESS)
    assert {line.status for line in lines_of(jobs, lists)} == {422}
    single = NumberedCall("one", Call(Endpoint.EMBEDDINGS, {"model": MODEL, "input": "text"}))
    job = jobs.create(Endpoint.EMBEDDINGS, MODEL, calls=[single], metadata={}, timeout_hours=1)
    assert [line.status for line in lines_of(jobs, until(jobs, job, SUCCESS))] == [200]


def test_answers_within_lines_are_spoiled_as_realtime_answers_are(emulator: EmulatorThread, jobs: SdkBatchJobs) -> None:
    arm(emulator, "too-few@batch-line")
    job = until(jobs, create(jobs), SUCCESS)
    assert {len(line.document["data"]) for line in lines_of(jobs, job) if line.document} == {1}
    arm(emulator, "nan@batch-line")
    job = until(jobs, create(jobs), SUCCESS)
    assert {line.document for line in lines_of(jobs, job)} == {None}  # NaN is not JSON


def test_faults_of_all_requests_strike_no_line(emulator: EmulatorThread, jobs: SdkBatchJobs) -> None:
    job = create(jobs)
    arm(emulator, "slow:1:0")
    assert len(lines_of(jobs, until(jobs, job, SUCCESS))) == ROWS


@pytest.mark.parametrize("call", ["create-batch", "upload"])
def test_what_was_made_without_an_answer_is_found_again(
    emulator: EmulatorThread, jobs: SdkBatchJobs, tmp_path: Path, call: str
) -> None:
    arm(emulator, f"lost@{call}:1:reset")
    path = tmp_path / "calls.jsonl"
    path.write_bytes(orjson.dumps({"custom_id": "1", "body": {"input": "text"}}))
    with pytest.raises(RemoteUnavailable):
        create(jobs, mark="lost") if call == "create-batch" else jobs.upload(path, "lost.jsonl", 1)
    arm(emulator)
    found = jobs.find({"mark": "lost"}, time.time()) if call == "create-batch" else jobs.find_files("lost.jsonl")
    assert len(found) == 1


def test_a_download_that_is_cut_keeps_the_lines_that_arrived(emulator: EmulatorThread, jobs: SdkBatchJobs) -> None:
    job = until(jobs, create(jobs), SUCCESS)
    arm(emulator, "reset@download")
    arrived: list[ResultLine] = []
    with pytest.raises(RemoteUnavailable):
        arrived.extend(jobs.results(str(job.output_file)))
    assert 0 < len(arrived) < ROWS
    assert all(line.document for line in arrived)


def test_a_job_of_an_account_without_billing_is_not_made(emulator: EmulatorThread, jobs: SdkBatchJobs) -> None:
    arm(emulator, "402")
    before = emulator.stats()["batches_created"]
    with pytest.raises(BillingRequired):
        create(jobs)
    assert emulator.stats()["batches_created"] == before


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"custom_id": "1"}', b'{"custom_id": "1", "body": {}}\n{"custom_id": "1", "body": {}}']
)
def test_a_file_that_cannot_be_run_ends_the_job_with_the_reason(
    jobs: SdkBatchJobs, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    file_id = jobs.upload(path, "bad.jsonl", 1)
    job = jobs.create(Endpoint.EMBEDDINGS, MODEL, file_id=file_id, metadata={}, timeout_hours=1)
    job = until(jobs, job)
    assert (job.status, job.output_file, job.error_file) == ("FAILED", None, None)
    assert job.errors


def test_jobs_that_a_restart_interrupts_go_on(tmp_path: Path) -> None:
    config = EmulatorConfig(port=0, batch_queue_s=0.01, batch_run_s=0.5, state_dir=tmp_path)
    with EmulatorThread(config) as first:
        jobs = SdkBatchJobs(SdkRequests("any", first.url, timeout_s=10))
        job = until(jobs, create(jobs), "RUNNING")
        jobs.close()
    with EmulatorThread(config) as second:
        jobs = SdkBatchJobs(SdkRequests("any", second.url, timeout_s=10))
        assert len(lines_of(jobs, until(jobs, job, SUCCESS))) == ROWS
        jobs.close()
