"""One suite for every `ControlPlane`: the adapter, against the emulator, and the one in memory that other tests use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from emulator_thread import EmulatorThread
from memory_mistral import MemoryMistral
from mistralai.client import models

from labelmill.contracts.errors import RemoteFailed, RequestRefused
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_worker.mistral.control_plane import SdkControlPlane
from labelmill_worker.mistral.sdk_requests import SdkRequests
from labelmill_worker.ports.control_plane import ControlPlane, JobOrder, RemoteJob
from labelmill_worker.ports.inference import Call, Endpoint

ROWS = b"".join(
    orjson.dumps({"text": f"{text} {number}", "labels": {"intent": text}}) + b"\n"
    for text in ("music", "weather")
    for number in range(10)
)


@pytest.fixture(params=["sdk", "memory"])
def plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    if request.param == "memory":
        yield MemoryMistral()
        return
    with EmulatorThread(EmulatorConfig(port=0, validate_s=0.05, train_s=0.05)) as emulator:
        made = SdkControlPlane(SdkRequests("any", emulator.url))
        yield made
        made.close()


@pytest.fixture
def file_id(plane: ControlPlane, tmp_path: Path) -> str:
    path = tmp_path / "train.jsonl"
    path.write_bytes(ROWS)
    return plane.upload_file(path, "train_1-train.jsonl", 24)


def job_in(plane: ControlPlane, job_id: str, status: str) -> RemoteJob:
    deadline = time.monotonic() + 60
    while (job := plane.get_job(job_id)).status != status:
        assert time.monotonic() < deadline, f"the job stayed {job.status}"
        time.sleep(0.02)
    return job


def test_a_file_is_found_by_its_name_until_it_is_deleted(plane: ControlPlane, file_id: str) -> None:
    (found,) = plane.find_files("train_1-train.jsonl")
    assert (found.id, found.size_bytes) == (file_id, len(ROWS))
    assert plane.find_files("train_1") == []
    plane.delete_file(file_id)
    plane.delete_file(file_id)
    assert plane.find_files("train_1-train.jsonl") == []


def test_a_job_is_found_by_its_file_priced_started_once_and_makes_a_model(plane: ControlPlane, file_id: str) -> None:
    assert plane.find_job(file_id) is None
    created = plane.create_job(JobOrder("ministral-3b-latest", (file_id,)))
    found = plane.find_job(file_id)
    assert found is not None
    assert (found.id, found.training_files) == (created.id, (file_id,))
    validated = job_in(plane, created.id, "VALIDATED")
    assert validated.cost
    assert validated.cost_currency == "EUR"
    plane.start_job(created.id)
    with pytest.raises(RequestRefused):
        plane.start_job(created.id)
    done = job_in(plane, created.id, "SUCCESS")
    assert done.checkpoints
    assert done.fine_tuned_model in {model.id for model in plane.list_models()}


def test_a_model_is_archived_brought_back_and_deleted(plane: ControlPlane, file_id: str) -> None:
    job = plane.create_job(JobOrder("ministral-3b-latest", (file_id,)))
    job_in(plane, job.id, "VALIDATED")
    plane.start_job(job.id)
    model_id = job_in(plane, job.id, "SUCCESS").fine_tuned_model or ""
    plane.archive_model(model_id)
    assert plane.get_model(model_id).is_archived
    plane.unarchive_model(model_id)
    assert not plane.get_model(model_id).is_archived
    plane.delete_model(model_id)
    for act in (plane.get_model, plane.archive_model, plane.unarchive_model, plane.delete_model):
        with pytest.raises(RemoteFailed):
            act(model_id)


def test_what_does_not_exist_is_told_apart(plane: ControlPlane) -> None:
    assert plane.find_job("file-of-nobody") is None
    with pytest.raises(RemoteFailed):
        plane.get_job("job-of-nobody")
    plane.check_key()
    plane.check_factory()


CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "play"}]}
SCHEMA = {"properties": {"intent": {"enum": ["alpha", "beta"], "type": "string"}}}
ANSWER_FORMAT = {"response_format": {"json_schema": {"schema": SCHEMA}}}
ANSWERS: dict[Endpoint, tuple[dict[str, Any], Any]] = {
    Endpoint.CLASSIFICATIONS: ({"input": ["play"]}, models.ClassificationResponse),
    Endpoint.CHAT_CLASSIFICATIONS: ({"input": [CHAT]}, models.ClassificationResponse),
    Endpoint.MODERATIONS: ({"input": ["play"]}, models.ModerationResponse),
    Endpoint.CHAT_MODERATIONS: ({"input": [CHAT["messages"]]}, models.ModerationResponse),
    Endpoint.EMBEDDINGS: ({"input": ["play"]}, models.EmbeddingResponse),
    Endpoint.CHAT_COMPLETIONS: (CHAT | ANSWER_FORMAT, models.ChatCompletionResponse),
}


@pytest.mark.parametrize("endpoint", Endpoint)
def test_the_answers_of_the_mistral_in_memory_are_those_that_the_sdk_decodes(endpoint: Endpoint) -> None:
    body, model = ANSWERS[endpoint]
    said = asyncio.run(MemoryMistral().answer(Call(endpoint, {"model": "some", **body})))
    assert isinstance(said.body, bytes)
    decoded = model.model_validate(orjson.loads(said.body))
    assert decoded.model_dump()
