"""The control plane's adapter on the real SDK: against the emulator, and against a server that misbehaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import orjson
import pytest
from emulator_thread import EmulatorThread
from fine_tuning_client import FineTuningClient

from labelmill.contracts.errors import (
    CredentialsRefused,
    FactoryClosed,
    InvalidInput,
    LabelmillError,
    MalformedAnswer,
    RateLimited,
    RemoteFailed,
    RemoteUnavailable,
    RequestRefused,
)
from labelmill.core.settings import Settings
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_ops.emulator.fault_kinds import parse_fault
from labelmill_worker.mistral.control_plane import SdkControlPlane
from labelmill_worker.mistral.sdk_requests import READ_ATTEMPTS, SdkRequests
from labelmill_worker.ports.control_plane import JobOrder, OrderedTarget, RemoteJob, RemoteModel

KEY = "sk-very-secret-key"
WORDS = {"music": ("play a song", "some jazz please", "louder"), "weather": ("will it rain", "is it sunny", "how cold")}


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorThread]:
    config = EmulatorConfig(port=0, validate_s=0.05, train_s=0.1, refused_keys=frozenset({"revoked"}))
    with EmulatorThread(config) as running:
        yield running


def plane_for(url: str, key: str = KEY, *, timeout_s: float = 10) -> SdkControlPlane:
    return SdkControlPlane(SdkRequests(key, url, timeout_s=timeout_s, sleep=lambda _: None))


@pytest.fixture
def plane(emulator: EmulatorThread) -> Iterator[SdkControlPlane]:
    plane = plane_for(emulator.url)
    yield plane
    plane.close()


@pytest.fixture
def train_file(tmp_path: Path) -> Path:
    rows = [
        {"text": f"{text} {extra}", "labels": {"intent": intent}}
        for intent, texts in WORDS.items()
        for text in texts
        for extra in ("now", "today", "again", "soon", "later")
    ]
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def job_in(plane: SdkControlPlane, job_id: str, *statuses: str) -> RemoteJob:
    deadline = time.monotonic() + 60
    while (job := plane.get_job(job_id)).status not in statuses:
        assert time.monotonic() < deadline, f"the job stayed {job.status}"
        time.sleep(0.02)
    return job


def test_an_uploaded_file_is_found_again_by_its_exact_name(plane: SdkControlPlane, train_file: Path) -> None:
    uploaded = plane.upload_file(train_file, "train_0001-train.jsonl", 1)
    plane.upload_file(train_file, "train_0001-train.jsonl.old.jsonl", 1)
    found = plane.find_files("train_0001-train.jsonl")
    assert [(file.id, file.size_bytes) for file in found] == [(uploaded, train_file.stat().st_size)]
    plane.upload_file(train_file, "train_00010-train.jsonl", 1)
    names = {file.name for file in plane.find_files_of("train_0001")}
    assert names == {"train_0001-train.jsonl", "train_0001-train.jsonl.old.jsonl"}
    plane.delete_file(uploaded)
    plane.delete_file(uploaded)
    assert plane.find_files("train_0001-train.jsonl") == []


def test_a_job_is_priced_found_by_its_file_started_and_ends_with_a_model(
    plane: SdkControlPlane, train_file: Path
) -> None:
    file_id = plane.upload_file(train_file, "a-train.jsonl", 1)
    assert plane.find_job(file_id) is None
    created = plane.create_job(JobOrder("ministral-3b-latest", (file_id,), (file_id,), (), "intents", 50, 0.001))
    found = plane.find_job(file_id)
    assert found is not None
    assert found.id == created.id
    validated = job_in(plane, created.id, "VALIDATED")
    assert validated.cost is not None
    assert validated.cost > 0
    assert validated.cost_currency
    assert validated.train_tokens
    plane.start_job(created.id)
    done = job_in(plane, created.id, "SUCCESS", "FAILED")
    assert done.fine_tuned_model
    assert done.checkpoints
    assert done.checkpoints[0].train_loss is not None
    assert {event.data["status"] for event in done.events} >= {"VALIDATED", "RUNNING", "SUCCESS"}
    assert done.fine_tuned_model in {model.id for model in plane.list_models()}
    assert plane.get_model(done.fine_tuned_model) == RemoteModel(done.fine_tuned_model)


def test_a_model_is_archived_brought_back_and_deleted(plane: SdkControlPlane, train_file: Path) -> None:
    job = plane.create_job(JobOrder("ministral-3b-latest", (plane.upload_file(train_file, "archived.jsonl", 1),)))
    job_in(plane, job.id, "VALIDATED")
    plane.start_job(job.id)
    model_id = job_in(plane, job.id, "SUCCESS").fine_tuned_model
    assert model_id is not None
    assert not plane.get_model(model_id).is_archived
    plane.archive_model(model_id)
    assert plane.get_model(model_id).is_archived
    plane.unarchive_model(model_id)
    assert not plane.get_model(model_id).is_archived
    plane.delete_model(model_id)
    for act in (plane.get_model, plane.archive_model, plane.delete_model):
        with pytest.raises(RemoteFailed):
            act(model_id)


def test_a_job_is_found_beyond_the_first_page(plane: SdkControlPlane, train_file: Path) -> None:
    wanted = plane.upload_file(train_file, "wanted-train.jsonl", 1)
    job = plane.create_job(JobOrder("ministral-3b-latest", (wanted,)))
    other = plane.upload_file(train_file, "other-train.jsonl", 1)
    for _ in range(101):
        plane.create_job(JobOrder("ministral-3b-latest", (other,)))
    found = plane.find_job(wanted)
    assert found is not None
    assert found.id == job.id


def test_a_refused_file_ends_in_failed_validation_with_the_reason(plane: SdkControlPlane, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "no labels"}\n')
    job = plane.create_job(JobOrder("ministral-3b-latest", (plane.upload_file(path, "bad-train.jsonl", 1),)))
    assert any("error" in event.data for event in job_in(plane, job.id, "FAILED_VALIDATION").events)


def test_a_job_that_does_not_exist_and_a_refused_key_are_told_apart(
    plane: SdkControlPlane, emulator: EmulatorThread
) -> None:
    with pytest.raises(RemoteFailed):
        plane.get_job("00000000-0000-0000-0000-000000000000")
    revoked = plane_for(emulator.url, "revoked")
    with pytest.raises(CredentialsRefused, match="MISTRAL_API_KEY"):
        revoked.check_key()
    revoked.close()


@pytest.mark.parametrize("key", [None, " ", "two words", "schlüssel"])
def test_without_a_usable_key_nothing_is_sent(key: str | None) -> None:
    settings = Settings(mistral_api_key=key, _env_file=None)
    with pytest.raises(CredentialsRefused, match="MISTRAL_API_KEY"):
        SdkControlPlane.from_settings(settings)


def test_a_wandb_project_needs_the_workers_key(plane: SdkControlPlane) -> None:
    with pytest.raises(InvalidInput, match="WANDB_API_KEY"):
        plane.create_job(JobOrder("ministral-3b-latest", ("file",), wandb_project="labels"))


class Misbehaving:
    """Answers every request alike, counts them and keeps their bodies."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        requests: list[str] = []
        self.requests = requests
        bodies: list[bytes] = []
        self.bodies = bodies

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.command)
                bodies.append(self.rfile.read(int(self.headers.get("content-length") or 0)))
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815 - see above

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


ECHO = orjson.dumps({"message": f"wrong: {KEY}"})


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected"),
    [
        (401, ECHO, {}, CredentialsRefused),
        (403, ECHO, {}, CredentialsRefused),
        (404, ECHO, {}, RemoteFailed),
        (400, ECHO, {}, RequestRefused),
        (413, ECHO, {}, RequestRefused),
        (422, b'{"detail": [{"loc": ["body", "model"], "msg": "unknown"}]}', {}, RequestRefused),
        (429, ECHO, {"retry-after": "7"}, RateLimited),
        (500, ECHO, {}, RemoteUnavailable),
        (503, b"<html>sorry</html>", {"content-type": "text/html"}, RemoteUnavailable),
        (200, b"{}", {}, MalformedAnswer),
        (200, b"<html>hello</html>", {"content-type": "text/html"}, MalformedAnswer),
        (200, b"{not json", {}, MalformedAnswer),
    ],
)
def test_every_answer_becomes_the_error_that_says_whether_to_try_again(
    status: int, body: bytes, headers: dict[str, str], expected: type[LabelmillError]
) -> None:
    with Misbehaving(status, body, headers) as server:
        plane = plane_for(server.url)
        with pytest.raises(expected) as read:
            plane.get_job("job")
        again = READ_ATTEMPTS if expected in (RemoteUnavailable, MalformedAnswer) else 1
        assert server.requests == ["GET"] * again
        with pytest.raises((expected, FactoryClosed)) as made:
            plane.create_job(JobOrder("ministral-3b-latest", ("file",)))
        assert server.requests[again:] == ["POST"]
        plane.close()
    for raised in (read.value, made.value):
        assert KEY not in str(raised)
        assert KEY not in repr(raised.__cause__)
        assert "<html" not in str(raised)
    if isinstance(read.value, RateLimited):
        assert read.value.retry_after_s == 7
    if status == 422:
        assert "body.model: unknown" in read.value.message


def test_a_wandb_project_goes_to_mistral_with_the_key_and_shows_it_to_nobody() -> None:
    job = {"id": "job", "status": "QUEUED", "created_at": 1, "training_files": ["file"]}
    with Misbehaving(200, orjson.dumps(job), {}) as server:
        plane = SdkControlPlane(SdkRequests(KEY, server.url), "wandb-key")
        plane.create_job(JobOrder("ministral-3b-latest", ("file",), wandb_project="labels"))
        plane.close()
    sent = orjson.loads(server.bodies[0])
    assert sent["integrations"] == [{"type": "wandb", "project": "labels", "api_key": "wandb-key"}]
    assert sent["auto_start"] is False
    with Misbehaving(400, b'{"message": "wandb-key is wrong"}', {}) as server:
        plane = SdkControlPlane(SdkRequests(KEY, server.url, secrets=("wandb-key",)), "wandb-key")
        with pytest.raises(RequestRefused) as refused:
            plane.create_job(JobOrder("ministral-3b-latest", ("file",), wandb_project="labels"))
        plane.close()
    assert "wandb-key" not in f"{refused.value} {refused.value.__cause__!r}"


NOT_AVAILABLE = b'{"object": "error", "message": "model not available for this type of fine-tuning", "type": "invalid"}'
REMEDIES = r"train with --method embedding or --method prompt instead"


@pytest.mark.parametrize("status", [403, 404, 405, 410, 422])
def test_an_account_without_the_factory_is_told_the_remedies(status: int) -> None:
    with Misbehaving(status, NOT_AVAILABLE, {}) as server:
        plane = plane_for(server.url)
        for call in (
            lambda: plane.find_job("file"),
            lambda: plane.create_job(JobOrder("ministral-3b-latest", ("f",))),
            plane.check_factory,
        ):
            with pytest.raises(FactoryClosed, match=rf"{REMEDIES}.*not available for this type"):
                call()
        plane.close()


@pytest.mark.parametrize(("status", "field"), [(410, "model"), (422, "model"), (422, "steps")])
def test_remedies_are_told_by_an_answer_that_repeats_the_key_too(status: int, field: str) -> None:
    body = orjson.dumps({"detail": [{"loc": ["body", field], "msg": f"not for {KEY}"}]})
    with Misbehaving(status, body, {}) as server:
        plane = plane_for(server.url)
        expected = RequestRefused if field == "steps" else FactoryClosed
        with pytest.raises(expected, match="not for") as refused:
            plane.create_job(JobOrder("ministral-3b-latest", ("f",)))
        plane.close()
    assert KEY not in f"{refused.value} {refused.value.__cause__!r}"


OURS: dict[str, object] = {"id": "ours", "status": "VALIDATED", "created_at": 7.0, "training_files": ["file"]}
FOREIGN_JOBS: list[object] = [
    {"id": "a", "status": "RUNNING", "created_at": None, "training_files": ["other"]},
    {"id": "b" * 101, "status": "s" * 41, "created_at": 1.5, "training_files": ["other"]},
    {"id": None, "training_files": [{"file_id": "file"}]},
    {"id": "d", "training_files": "file"},
    {"id": "e"},
    None,
    "file",
]


def test_jobs_of_others_need_not_be_readable_for_ours_to_be_found() -> None:
    with Misbehaving(200, orjson.dumps({"data": [*FOREIGN_JOBS, OURS]}), {}) as server:
        plane = plane_for(server.url)
        plane.check_factory()
        assert plane.find_job("nobody's") is None
        found = plane.find_job("file")
        plane.close()
    assert found is not None
    assert (found.id, found.created_at) == ("ours", 7)


def test_a_list_of_jobs_that_is_none_is_not_taken_for_an_empty_one() -> None:
    for body in (b"[]", b'{"data": {"id": "job"}}', b'"data"'):
        with Misbehaving(200, body, {}) as server:
            plane = plane_for(server.url)
            with pytest.raises(MalformedAnswer):
                plane.find_job("file")
            plane.close()


def test_an_event_with_a_time_that_cannot_be_one_keeps_no_job_from_being_followed() -> None:
    events = [{"name": "odd", "created_at": at} for at in (None, "now", -1, 1.5)]
    events.append({"name": "good", "created_at": 5.0})
    with Misbehaving(200, orjson.dumps({**OURS, "events": events}), {}) as server:
        plane = plane_for(server.url)
        job = plane.get_job("ours")
        plane.close()
    assert [(event.name, event.created_at) for event in job.events] == [("good", 5)]


def test_files_of_others_need_not_be_readable_for_ours_to_be_found() -> None:
    ours = {"id": "f", "object": "file", "bytes": 3, "created_at": 1, "filename": "train_1-train.jsonl"}
    ours |= {"purpose": "fine-tune", "sample_type": "instruct", "source": "upload"}
    foreign = [{"id": "g", "filename": None}, {"id": 5}, None, ours | {"filename": "train_12", "bytes": None}]
    with Misbehaving(200, orjson.dumps({"data": [*foreign, ours]}), {}) as server:
        plane = plane_for(server.url)
        assert [file.id for file in plane.find_files("train_1-train.jsonl")] == ["f"]
        assert [file.size_bytes for file in plane.find_files_of("train_1")] == [3]
        plane.close()


def test_a_model_whose_card_cannot_be_read_hides_no_other_model() -> None:
    card = {"id": "mistral-small-2603", "capabilities": {"completion_chat": True}, "type": "base", "aliases": ["small"]}
    odd = [{"id": "new", "type": "base", "capabilities": 7, "created": "x"}, {"id": 3}, None, {"id": "a\nb"}, "model"]
    odd.append({"id": "old-2411", "type": None, "aliases": ["old", 5], "deprecation": "2026-12-31T00:00:00Z"})
    odd.append({"id": "undated", "deprecation": "soon", "deprecation_replacement_model": "new"})
    with Misbehaving(200, orjson.dumps({"data": [*odd, card]}), {}) as server:
        plane = plane_for(server.url)
        models = plane.list_models()
        plane.close()
    assert models == [
        RemoteModel("new"),
        RemoteModel("old-2411", aliases=("old", "5"), deprecated_at="2026-12-31T00:00:00+00:00"),
        RemoteModel("undated", replacement="new"),
        RemoteModel("mistral-small-2603", can_chat=True, aliases=("small",)),
    ]


def test_the_emulator_can_have_retired_fine_tuning() -> None:
    config = EmulatorConfig(port=0, faults=(parse_fault("410@create-job,list-jobs"),))
    with EmulatorThread(config) as emulator:
        plane = plane_for(emulator.url)
        with pytest.raises(FactoryClosed, match=REMEDIES):
            plane.check_factory()
        plane.check_key()
        plane.close()


@pytest.mark.parametrize("status", [405, 410])
def test_a_job_that_the_retirement_overtakes_ends_with_the_remedies(status: int) -> None:
    with Misbehaving(status, b'{"message": "Gone"}', {}) as server:
        plane = plane_for(server.url)
        for call in (plane.get_job, plane.start_job, plane.cancel_job):
            with pytest.raises(FactoryClosed, match=REMEDIES):
                call("job")
        plane.close()


def test_an_order_with_a_wrong_number_is_the_orders_fault() -> None:
    body = b'{"detail": [{"loc": ["body", "hyperparameters", "training_steps"], "msg": "too many"}]}'
    with Misbehaving(422, body, {}) as server:
        plane = plane_for(server.url)
        with pytest.raises(RequestRefused, match="training_steps: too many"):
            plane.create_job(JobOrder("ministral-3b-latest", ("f",), steps=10**6))
        plane.close()


def test_a_model_that_cannot_be_tuned_is_no_closed_factory() -> None:
    body = b'{"object":"error","message":"Invalid model: x","type":"invalid_model","code":"1500"}'
    with Misbehaving(404, body, {}) as server:
        plane = plane_for(server.url)
        with pytest.raises(RemoteFailed, match="Invalid model"):
            plane.create_job(JobOrder("x", ("f",)))
        plane.close()


def test_targets_are_sent_with_their_weights(plane: SdkControlPlane, emulator: EmulatorThread, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(
        b"".join(
            orjson.dumps({"text": f"text {n}", "labels": {"a": "xy"[n % 2], "b": ["z"] if n % 3 else ["w"]}}) + b"\n"
            for n in range(40)
        )
    )
    parts = [plane.upload_file(path, f"part-{number}.jsonl", 1) for number in (1, 2)]
    targets = (OrderedTarget("a", ("x", "y"), weight=2.0), OrderedTarget("b", ("z", "w", "never"), multi=True))
    job = plane.create_job(JobOrder("ministral-3b-latest", tuple(parts), targets=targets))
    assert job.training_files == tuple(parts)
    assert plane.find_job(parts[0]) is not None
    deadline = time.monotonic() + 60
    while (status := plane.get_job(job.id).status) not in ("VALIDATED", "FAILED_VALIDATION"):
        assert time.monotonic() < deadline
    assert status == "VALIDATED"
    shown = FineTuningClient(emulator.url).get(job_id=job.id)
    assert [(one.name, one.weight, one.labels) for one in shown.classifier_targets] == [
        ("a", 2.0, ["x", "y"]),
        ("b", 1.0, ["z", "w", "never"]),
    ]


def test_a_server_that_is_not_there_is_worth_another_try() -> None:
    plane = plane_for("http://127.0.0.1:1", timeout_s=1)
    with pytest.raises(RemoteUnavailable):
        plane.find_job("file")
    plane.close()


def test_every_request_passes_the_gate(emulator: EmulatorThread) -> None:
    passed: list[None] = []
    plane = SdkControlPlane(SdkRequests(KEY, emulator.url, before_request=lambda: passed.append(None)))
    plane.check_key()
    plane.find_files("nothing")
    plane.close()
    assert len(passed) == 2


def test_the_key_stands_in_no_repr(plane: SdkControlPlane) -> None:
    assert KEY not in repr(plane)
