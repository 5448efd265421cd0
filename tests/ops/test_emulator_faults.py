"""Every fault of the emulator as the worker's clients meet it: the thin client for texts, the SDK for the rest."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from emulator_thread import EmulatorThread

from labelmill.contracts.errors import (
    LabelmillError,
    MalformedAnswer,
    RateLimited,
    RemoteFailed,
    RemoteUnavailable,
)
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_worker.inference.answers import check_scores
from labelmill_worker.mistral.control_plane import SdkControlPlane
from labelmill_worker.mistral.realtime import RealtimeInference
from labelmill_worker.mistral.sdk_requests import SdkRequests
from labelmill_worker.ports.control_plane import JobOrder, RemoteJob
from labelmill_worker.ports.inference import Call, Endpoint

SCHEMA = LabelSchema((Target("intent", ("music", "weather")),))
TEXTS = ["play a song", "will it rain"]
ROWS = [
    {"text": f"{text} {number}", "labels": {"intent": intent}}
    for text, intent in (("play a song", "music"), ("will it rain", "weather"))
    for number in range(8)
]


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorConfig(port=0, validate_s=0.0, train_s=0.0)) as running:
        yield running


@pytest.fixture(autouse=True)
def _calm(emulator: EmulatorThread) -> Iterator[None]:
    yield
    arm(emulator)


def arm(emulator: EmulatorThread, *faults: str) -> None:
    answer = httpx2.put(f"{emulator.url}/_control/faults", json={"faults": list(faults), "seed": 1})
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def plane(emulator: EmulatorThread) -> Iterator[SdkControlPlane]:
    made = SdkControlPlane(SdkRequests("any", emulator.url, timeout_s=10, sleep=lambda _: None))
    yield made
    made.close()


@pytest.fixture(scope="module")
def training_file(plane: SdkControlPlane, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("files") / "train.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, ROWS)) + b"\n")
    return plane.upload_file(path, "train.jsonl", 1)


def job_in(plane: SdkControlPlane, job_id: str, status: str) -> RemoteJob:
    deadline = time.monotonic() + 60
    while (job := plane.get_job(job_id)).status != status:
        assert time.monotonic() < deadline, f"the job stayed {job.status}"
        time.sleep(0.01)
    return job


@pytest.fixture(scope="module")
def model(plane: SdkControlPlane, training_file: str) -> str:
    job = plane.create_job(JobOrder("ministral-3b-latest", (training_file,)))
    job_in(plane, job.id, "VALIDATED")
    plane.start_job(job.id)
    return job_in(plane, job.id, "SUCCESS").fine_tuned_model or ""


def classify(emulator: EmulatorThread, model: str, *, timeout_s: float = 10) -> Any:
    """One request of the worker's thin client, its answer checked as the worker checks it."""

    async def ask() -> Any:
        client = RealtimeInference(emulator.url, "any", timeout_s=timeout_s)
        try:
            reply = await client.send(Call(Endpoint.CLASSIFICATIONS, {"model": model, "input": TEXTS}))
            return check_scores(reply.document["results"], len(TEXTS), SCHEMA)
        finally:
            await client.close()

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("429x1", RateLimited),
        ("429x1:1:none", RateLimited),
        ("500x1", RemoteUnavailable),
        ("502x1", RemoteUnavailable),
        ("503x1:1:2", RemoteUnavailable),
        ("cutx1", RemoteUnavailable),
        ("resetx1", RemoteUnavailable),
        ("hangx1:1:0.1", RemoteUnavailable),
        ("truncatedx1", MalformedAnswer),
        ("malformedx1", MalformedAnswer),
        ("htmlx1", MalformedAnswer),
        ("too-fewx1", MalformedAnswer),
        ("too-manyx1", MalformedAnswer),
        ("unknown-labelx1", MalformedAnswer),
        ("nanx1", MalformedAnswer),
        ("infinityx1", MalformedAnswer),
    ],
)
def test_the_thin_client_names_every_fault_and_the_next_request_is_answered(
    emulator: EmulatorThread, model: str, fault: str, error: type[LabelmillError]
) -> None:
    arm(emulator, fault)
    with pytest.raises(error):
        classify(emulator, model)
    assert len(classify(emulator, model)[0]) == len(TEXTS)


@pytest.mark.parametrize(("fault", "wait_s"), [("429:1:7", 7.0), ("429:1:none", None), ("503:1:2", 2.0)])
def test_retry_after_is_told_when_it_is_asked_for(
    emulator: EmulatorThread, model: str, fault: str, wait_s: float | None
) -> None:
    arm(emulator, fault)
    with pytest.raises((RateLimited, RemoteUnavailable)) as met:
        classify(emulator, model)
    assert met.value.retry_after_s == wait_s


@pytest.mark.parametrize("fault", ["hang", "slow:1:20"])
def test_a_request_of_the_thin_client_has_one_deadline_for_all_of_it(
    emulator: EmulatorThread, model: str, fault: str
) -> None:
    arm(emulator, fault)
    began = time.monotonic()
    with pytest.raises(RemoteUnavailable, match=r"within 0\.5 s"):
        classify(emulator, model, timeout_s=0.5)
    assert time.monotonic() - began < 15, "the answer takes 20 s, or never comes"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("429", RateLimited),
        ("500", RemoteUnavailable),
        ("502", RemoteUnavailable),
        ("503", RemoteUnavailable),
        ("cut", RemoteUnavailable),
        ("reset", RemoteUnavailable),
        ("hang:1:0.1", RemoteUnavailable),
        ("truncated", MalformedAnswer),
        ("malformed", MalformedAnswer),
        ("html", MalformedAnswer),
    ],
)
def test_the_sdk_adapter_names_every_fault(emulator: EmulatorThread, fault: str, error: type[LabelmillError]) -> None:
    arm(emulator, fault)
    plane = SdkControlPlane(SdkRequests("any", emulator.url, timeout_s=10, sleep=lambda _: None))
    with pytest.raises(error):
        plane.list_models()
    plane.close()


@pytest.mark.parametrize("fault", ["hang", "slow:1:20"])
def test_a_call_of_the_sdk_adapter_has_one_deadline_for_all_of_it(emulator: EmulatorThread, fault: str) -> None:
    arm(emulator, fault)
    plane = SdkControlPlane(SdkRequests("any", emulator.url, timeout_s=0.6, sleep=lambda _: None))
    began = time.monotonic()
    with pytest.raises(RemoteUnavailable, match=r"not answer (in time|within 0\.6 s)"):
        plane.list_models()
    assert time.monotonic() - began < 15, "the answer takes 20 s, or never comes"
    for thread in threading.enumerate():  # what was given up ends by itself
        if thread.name == "mistral-call":
            thread.join(60)
            assert not thread.is_alive()
    plane.close()


def test_refused_connections_end_by_themselves(emulator: EmulatorThread, plane: SdkControlPlane) -> None:
    arm(emulator, "refusedx1:1:1.5")
    with pytest.raises(RemoteUnavailable):
        plane.list_models()
    host, _, port = emulator.url.removeprefix("http://").partition(":")
    with pytest.raises(OSError, match=r"[Rr]efused"):
        socket.create_connection((host, int(port)), timeout=2)
    deadline = time.monotonic() + 60
    while True:
        try:
            assert plane.list_models()
        except RemoteUnavailable:
            assert time.monotonic() < deadline
        else:
            break


@pytest.mark.parametrize(("fault", "status"), [("429-storm", 429), ("outage", 503)])
def test_a_storm_holds_everything_back_and_passes(emulator: EmulatorThread, fault: str, status: int) -> None:
    with httpx2.Client(headers={"Authorization": "Bearer any"}) as client:
        arm(emulator, f"{fault}x1:1:60")
        answers = [client.get(f"{emulator.url}/v1/models") for _ in range(5)]
        arm(emulator, f"{fault}x1:1:0.4")
        began = time.monotonic()
        while (answer := client.get(f"{emulator.url}/v1/models")).status_code != 200:
            answers.append(answer)
            assert time.monotonic() - began < 60
        assert time.monotonic() - began >= 0.4
    assert {answer.status_code for answer in answers} == {status}
    assert not any("retry-after" in answer.headers for answer in answers)


@pytest.mark.parametrize("how", ["502", "reset"])
def test_a_job_whose_creation_got_no_answer_is_there(
    emulator: EmulatorThread, plane: SdkControlPlane, training_file: str, how: str
) -> None:
    before = emulator.stats()["jobs_created"]
    arm(emulator, f"lostx1:1:{how}")
    with pytest.raises(RemoteUnavailable):
        plane.create_job(JobOrder("ministral-3b-latest", (training_file,)))
    assert emulator.stats()["jobs_created"] == before + 1
    assert plane.find_job(training_file) is not None


def test_an_upload_whose_answer_got_lost_is_there(
    emulator: EmulatorThread, plane: SdkControlPlane, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"{}\n")
    arm(emulator, "lost@uploadx1")
    with pytest.raises(RemoteUnavailable):
        plane.upload_file(path, "lost-upload.jsonl", 1)
    assert len(plane.find_files("lost-upload.jsonl")) == 1


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("job-invalid", "FAILED_VALIDATION"),
        ("job-cancelled:1:QUEUED", "CANCELLED"),
        ("job-cancelled:1:VALIDATED", "CANCELLED"),
    ],
)
def test_a_job_meets_its_fate_before_it_is_started(
    emulator: EmulatorThread, plane: SdkControlPlane, training_file: str, fault: str, status: str
) -> None:
    arm(emulator, fault)
    job_in(plane, plane.create_job(JobOrder("ministral-3b-latest", (training_file,))).id, status)


@pytest.mark.parametrize(("fault", "status"), [("job-fails", "FAILED"), ("job-cancelled", "CANCELLED")])
def test_a_job_meets_its_fate_while_it_trains(
    emulator: EmulatorThread, plane: SdkControlPlane, training_file: str, fault: str, status: str
) -> None:
    arm(emulator, fault)
    job = plane.create_job(JobOrder("ministral-3b-latest", (training_file,)))
    job_in(plane, job.id, "VALIDATED")
    plane.start_job(job.id)
    ended = job_in(plane, job.id, status)
    assert ended.fine_tuned_model is None
    assert any("error" in event.data for event in ended.events) == (status == "FAILED")


@pytest.mark.parametrize("status", ["QUEUED", "VALIDATING", "VALIDATED", "RUNNING"])
def test_a_stuck_job_stays_where_it_is_until_it_is_cancelled(
    emulator: EmulatorThread, plane: SdkControlPlane, training_file: str, status: str
) -> None:
    arm(emulator, f"job-stuck:1:{status}")
    job = plane.create_job(JobOrder("ministral-3b-latest", (training_file,)))
    if status in {"VALIDATED", "RUNNING"}:
        job_in(plane, job.id, "VALIDATED")
        plane.start_job(job.id)
    job_in(plane, job.id, status)
    arm(emulator)
    assert {plane.get_job(job.id).status for _ in range(20)} == {status}
    plane.cancel_job(job.id)
    job_in(plane, job.id, "CANCELLED")


def test_a_vanished_job_is_unknown_to_every_route(
    emulator: EmulatorThread, plane: SdkControlPlane, training_file: str
) -> None:
    arm(emulator, "job-vanishes:1:VALIDATED")
    job = plane.create_job(JobOrder("ministral-3b-latest", (training_file,)))
    with pytest.raises(RemoteFailed, match="404"):
        job_in(plane, job.id, "nowhere")


def test_billed_texts_are_counted_to_the_text_and_spoiled_ones_with_them(emulator: EmulatorThread, model: str) -> None:
    httpx2.post(f"{emulator.url}/_control/reset-stats")
    arm(emulator, "500x1", "truncatedx1")
    for _ in range(2):
        with pytest.raises(LabelmillError):
            classify(emulator, model)
    classify(emulator, model)
    stats = httpx2.get(f"{emulator.url}/_control/stats", params={"digests": "true"}).json()
    digests = {hashlib.sha256(text.encode()).hexdigest()[:16] for text in TEXTS}
    assert stats["billed"] == dict.fromkeys(digests, 2)
    assert stats["spoiled"] == dict.fromkeys(digests, 1)
    assert (stats["texts"], stats["distinct_texts"], stats["billed_twice"], stats["spoiled_texts"]) == (4, 2, 2, 2)
    assert stats["faults"] == {"500": 1, "truncated": 1}


def test_the_control_endpoint_refuses_what_is_no_fault_and_keeps_the_armed_ones(emulator: EmulatorThread) -> None:
    arm(emulator, "502:0.5")
    answer = httpx2.put(f"{emulator.url}/_control/faults", json={"faults": ["429", "explode"]})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("there is no fault 'explode'; there are 410, 429")
    assert httpx2.put(f"{emulator.url}/_control/faults", json={"faults": "502"}).status_code == 422
    assert httpx2.get(f"{emulator.url}/_control/faults").json()["faults"] == [{"fault": "502:0.5", "struck": 0}]


def test_the_control_endpoint_answers_to_this_machine_alone() -> None:
    own = _address_of_this_machine()
    with EmulatorThread(EmulatorConfig(host="0.0.0.0", port=0)) as emulator:
        port = emulator.url.rpartition(":")[2]
        assert httpx2.get(f"http://127.0.0.1:{port}/_control/stats").status_code == 200
        assert httpx2.get(f"http://{own}:{port}/_control/stats").status_code == 403


def _address_of_this_machine() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address = str(probe.getsockname()[0])
    if address.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    return address
