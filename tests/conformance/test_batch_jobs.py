"""The port of batch jobs, by the same tests: the adapter on the real SDK with the emulator, and the one in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from emulator_thread import EmulatorThread
from memory_batch_jobs import MemoryBatchJobs
from memory_mistral import MemoryMistral
from mistralai.client.models import BatchJob

from labelmill.contracts.errors import BillingRequired, RemoteFailed
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_worker.mistral.batch_jobs import SdkBatchJobs
from labelmill_worker.mistral.sdk_requests import SdkRequests
from labelmill_worker.ports.batch_jobs import (
    CANCELLATION_REQUESTED,
    CANCELLED,
    QUEUED,
    SUCCESS,
    BatchJobs,
    NumberedCall,
    RemoteBatch,
    ResultLine,
)
from labelmill_worker.ports.inference import Call, Endpoint

MODEL = "mistral-embed"
QUICK = EmulatorConfig(port=0, batch_queue_s=0.02, batch_run_s=0.05)


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorThread]:
    with EmulatorThread(QUICK) as running:
        yield running


def adapter_for(url: str, key: str = "any") -> SdkBatchJobs:
    return SdkBatchJobs(SdkRequests(key, url, timeout_s=10, sleep=lambda _: None))


@pytest.fixture
def sdk_jobs(emulator: EmulatorThread) -> Iterator[SdkBatchJobs]:
    made = adapter_for(emulator.url)
    yield made
    made.close()


@pytest.fixture(params=["sdk", "memory"])
def jobs(request: pytest.FixtureRequest) -> BatchJobs:
    if request.param == "memory":
        return MemoryBatchJobs(MemoryMistral())
    made: BatchJobs = request.getfixturevalue("sdk_jobs")
    return made


def calls_for(*texts: str, each: int = 1) -> list[NumberedCall]:
    groups = [list(texts[start : start + each]) for start in range(0, len(texts), each)]
    return [
        NumberedCall(f"row-{number}", Call(Endpoint.EMBEDDINGS, {"model": MODEL, "input": group}))
        for number, group in enumerate(groups)
    ]


def file_of(folder: Path, calls: Sequence[NumberedCall]) -> Path:
    path = folder / "calls.jsonl"
    lines = [{"custom_id": one.custom_id, "body": dict(one.call.body)} for one in calls]
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def created(jobs: BatchJobs, calls: Sequence[NumberedCall], **metadata: str) -> RemoteBatch:
    return jobs.create(Endpoint.EMBEDDINGS, MODEL, calls=calls, metadata=metadata, timeout_hours=24)


def ended(jobs: BatchJobs, job: RemoteBatch) -> RemoteBatch:
    deadline = time.monotonic() + 60
    while not (now := jobs.get(job.id)).has_ended:
        assert time.monotonic() < deadline, f"the job stayed {now.status}"
        time.sleep(0.02)
    return now


def lines_by_id(jobs: BatchJobs, file_id: str | None) -> dict[str | None, ResultLine]:
    return {line.custom_id: line for line in jobs.results(file_id)} if file_id else {}


def test_calls_of_a_file_are_answered_in_the_output_file(jobs: BatchJobs, tmp_path: Path) -> None:
    path = file_of(tmp_path, calls_for("one", "two", "three", "four", each=2))
    file_id = jobs.upload(path, "remote_1.jsonl", 24)
    assert [(file.id, file.size_bytes) for file in jobs.find_files("remote_1.jsonl")] == [
        (file_id, path.stat().st_size)
    ]
    job = jobs.create(Endpoint.EMBEDDINGS, MODEL, file_id=file_id, metadata={"mark": "m-1"}, timeout_hours=24)
    assert (job.status, job.endpoint, job.metadata) == (QUEUED, Endpoint.EMBEDDINGS, {"mark": "m-1"})
    job = ended(jobs, job)
    assert (job.status, job.total_requests, job.succeeded_requests, job.failed_requests) == (SUCCESS, 2, 2, 0)
    assert job.error_file is None
    lines = lines_by_id(jobs, job.output_file)
    assert set(lines) == {"row-0", "row-1"}
    for line in lines.values():
        assert line.document is not None
        assert len(line.document["data"]) == 2
        assert (line.status, line.error) == (200, None)
    for one in (file_id, str(job.output_file)):
        jobs.delete_file(one)
        jobs.delete_file(one)
    assert jobs.find_files("remote_1.jsonl") == []
    with pytest.raises(RemoteFailed):
        list(jobs.results(str(job.output_file)))


def test_calls_in_the_request_are_answered_as_well_and_shown_with_the_job(jobs: BatchJobs) -> None:
    job = ended(jobs, created(jobs, calls_for("one", "two")))
    from_file = lines_by_id(jobs, job.output_file)
    assert set(from_file) == {"row-0", "row-1"}
    assert {line.custom_id for line in jobs.inline_results(job.id)} == {"row-0", "row-1"}


def test_a_job_is_found_by_all_of_its_metadata(jobs: BatchJobs) -> None:
    before = time.time()
    first = created(jobs, calls_for("one"), mark="m-2", model="m")
    second = created(jobs, calls_for("one"), mark="m-2", status="b")
    assert [job.id for job in jobs.find({"mark": "m-2"}, before)] == [first.id, second.id]
    assert [job.id for job in jobs.find({"mark": "m-2", "status": "b"}, before)] == [second.id]
    assert jobs.find({"mark": "m-3"}, before) == []


def test_a_cancelled_job_ends_and_one_that_has_ended_keeps_its_end(jobs: BatchJobs) -> None:
    job = created(jobs, calls_for("one", "two"))
    assert jobs.cancel(job.id).status in (CANCELLATION_REQUESTED, CANCELLED)
    assert ended(jobs, job).status == CANCELLED
    done = ended(jobs, created(jobs, calls_for("one")))
    assert jobs.cancel(done.id).status == SUCCESS


def test_a_deleted_job_is_known_no_more(jobs: BatchJobs) -> None:
    job = ended(jobs, created(jobs, calls_for("one"), mark="m-4"))
    jobs.delete_job(job.id)
    jobs.delete_job(job.id)
    assert jobs.find({"mark": "m-4"}, 0) == []
    with pytest.raises(RemoteFailed):
        jobs.get(job.id)


def test_an_account_without_billing_is_told_what_to_do(tmp_path: Path) -> None:
    memory = MemoryBatchJobs(MemoryMistral())
    memory.has_billing = False
    with EmulatorThread(EmulatorConfig(port=0, batch_billing=False)) as poor:
        adapter = adapter_for(poor.url)
        for jobs in (memory, adapter):
            with pytest.raises(BillingRequired):
                jobs.check_billing()
        with pytest.raises(BillingRequired, match="enable it in Mistral's console, or use --mode realtime"):
            created(adapter, calls_for("one"))
        adapter.close()


def test_a_refused_call_is_in_the_error_file_with_its_status_and_reason(sdk_jobs: SdkBatchJobs) -> None:
    calls = [*calls_for("one", "two"), NumberedCall("bad", Call(Endpoint.EMBEDDINGS, {"model": MODEL, "input": [" "]}))]
    job = ended(sdk_jobs, created(sdk_jobs, calls))
    assert (job.status, job.succeeded_requests, job.failed_requests) == (SUCCESS, 2, 1)
    assert set(lines_by_id(sdk_jobs, job.output_file)) == {"row-0", "row-1"}
    refused = lines_by_id(sdk_jobs, job.error_file)["bad"]
    assert (refused.status, refused.document) == (422, None)
    assert refused.error


def test_an_uploaded_file_is_its_owners_alone_and_expires(
    emulator: EmulatorThread, sdk_jobs: SdkBatchJobs, tmp_path: Path
) -> None:
    file_id = sdk_jobs.upload(file_of(tmp_path, calls_for("one")), "private.jsonl", 48)
    shown = sdk_jobs._requests.sdk.files.retrieve(file_id=file_id)
    assert shown.visibility == "user"
    assert isinstance(shown.expires_at, int)
    assert shown.expires_at - shown.created_at == 48 * 3600
    other = adapter_for(emulator.url, "another key")
    assert other.find_files("private.jsonl") == []
    with pytest.raises(RemoteFailed):
        list(other.results(file_id))
    other.close()


def test_a_job_is_found_behind_hundreds_of_newer_ones(sdk_jobs: SdkBatchJobs) -> None:
    wanted = created(sdk_jobs, calls_for("one"), mark="m-5")
    for _ in range(120):
        created(sdk_jobs, calls_for("one"), mark="other")
    assert [job.id for job in sdk_jobs.find({"mark": "m-5"}, time.time())] == [wanted.id]


def test_the_sdk_reads_what_the_emulator_sends(sdk_jobs: SdkBatchJobs, tmp_path: Path) -> None:
    sdk = sdk_jobs._requests.sdk
    job = created(sdk_jobs, calls_for("one", "two"), mark="m-6")
    ended(sdk_jobs, job)
    shown = sdk.batch.jobs.get(job_id=job.id, inline=True)
    assert isinstance(shown, BatchJob)
    assert isinstance(shown.outputs, list)
    assert len(shown.outputs) == 2
    listed = sdk.batch.jobs.list(status=["SUCCESS"], model=MODEL, metadata={"mark": "m-6"}, created_by_me=True)
    assert [one.id for one in listed.data or []] == [job.id]
    assert sdk.batch.jobs.list(status=["FAILED"], metadata={"mark": "m-6"}).data == []
    assert sdk.batch.jobs.delete(job_id=job.id).deleted
    sdk_jobs.upload(file_of(tmp_path, calls_for("one")), "typed.jsonl", 1)
    assert isinstance(sdk.files.list(search="typed.jsonl").data[0].expires_at, int)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"input_files": []}, "input_files"),
        ({"requests": [{"body": {}}], "unknown": 1}, "unknown"),
        ({"requests": [{"body": {}}], "timeout_hours": 200}, "timeout_hours"),
        ({"requests": [{"body": {}}], "metadata": {"k" * 33: "v"}}, "metadata"),
        ({"requests": [{"body": {}}], "endpoint": "/v1/nothing"}, "endpoint"),
    ],
)
def test_an_order_that_mistral_would_refuse_is_refused(
    sdk_jobs: SdkBatchJobs, body: dict[str, Any], field: str
) -> None:
    order = {"endpoint": "/v1/embeddings", "model": MODEL} | body
    requests = sdk_jobs._requests
    response = requests.http.post(f"{requests._url}/v1/batch/jobs", json=order, headers=requests._headers)
    assert response.status_code == 422
    assert any(field in detail["loc"] for detail in response.json()["detail"])


class _Page:
    """In place of the answers of a list: the same page, however often it is asked for."""

    def __init__(self, *entries: object) -> None:
        self.entries = entries

    def __call__(self, method: str, path: str, body: object = None, query: object = None) -> object:
        del method, path, body, query
        return {"object": "list", "data": [*self.entries]}


def test_jobs_of_others_need_not_be_readable_for_ours_to_be_found(
    sdk_jobs: SdkBatchJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours: dict[str, object] = {"id": "ours", "input_files": [], "endpoint": "/v1/embeddings", "errors": []}
    ours |= {"status": "RUNNING", "created_at": 7, "metadata": {"mark": "m", "also": "x"}}
    ours |= dict.fromkeys(("total_requests", "completed_requests", "succeeded_requests", "failed_requests"), 1)
    foreign = ({"id": "a", "created_at": None, "metadata": {"mark": "n"}}, {"metadata": ["mark"]}, {"id": 1}, None)
    monkeypatch.setattr(sdk_jobs._requests, "json", _Page(*foreign, ours))
    sdk_jobs.check_billing()
    assert [job.id for job in sdk_jobs.find({"mark": "m"}, 1.0)] == ["ours"]
    assert sdk_jobs.find({"mark": "other"}, 1.0) == []
