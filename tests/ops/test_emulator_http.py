"""The emulator without the SDK: what it counts, limits, and answers while it trains."""

import itertools
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest
from emulator_thread import EmulatorThread

from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_ops.emulator.throttling import RequestBucket

KEY = {"Authorization": "Bearer any"}
EMBED = {"model": "mistral-embed", "input": ["one", "two", "three"]}


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:
    with EmulatorThread() as running:
        yield running


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer"}, {"Authorization": "Basic abc"}], ids=str)
def test_a_request_without_a_bearer_key_gets_401(emulator: EmulatorThread, headers: dict[str, str]) -> None:
    answer = httpx2.get(f"{emulator.url}/v1/models", headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"})


def test_requests_and_texts_are_counted_until_reset(emulator: EmulatorThread) -> None:
    httpx2.post(f"{emulator.url}/v1/embeddings", headers=KEY, json=EMBED)
    httpx2.get(f"{emulator.url}/v1/files/none", headers=KEY)
    stats = httpx2.get(f"{emulator.url}/_control/stats").json()
    assert stats == emulator.stats()
    assert stats["requests"] == {"/v1/embeddings": 1, "/v1/files/{file_id}": 1}
    assert stats["statuses"] == {"200": 1, "404": 1}
    assert stats["texts"] == 3
    assert httpx2.post(f"{emulator.url}/_control/reset-stats").json()["texts"] == 0
    assert emulator.stats()["requests"] == {}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/nothing", b"{}", 404),
        ("/v1/classifications", b"{", 422),
        ("/v1/classifications", b"[]", 422),
        ("/v1/classifications", b'{"input": "a"}', 422),
        ("/v1/classifications", b'{"model": "none", "input": "a"}', 404),
        ("/v1/embeddings", b'{"model": "mistral-embed", "input": [1]}', 422),
        ("/v1/fine_tuning/jobs", b'{"model": "ministral-3b-latest"}', 422),
        ("/v1/fine_tuning/jobs", b'{"model": "mistral-embed", "hyperparameters": {}}', 400),
        ("/v1/files", b"{}", 422),
    ],
)
def test_a_wrong_request_is_refused_as_json(emulator: EmulatorThread, path: str, body: bytes, status: int) -> None:
    answer = httpx2.post(f"{emulator.url}{path}", headers={**KEY, "Content-Type": "application/json"}, content=body)
    assert answer.status_code == status
    assert answer.json()


def test_above_the_rate_limit_requests_get_429_with_retry_after() -> None:
    with EmulatorThread(EmulatorConfig(port=0, requests_per_second=0.05)) as emulator, httpx2.Client() as client:
        answers = [client.get(f"{emulator.url}/v1/models", headers=KEY) for _ in range(10)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert answers[0].status_code == 200
        assert refused
        assert int(refused[0].headers["Retry-After"]) >= 1
        assert refused[0].json()["type"] == "rate_limited"
        assert client.get(f"{emulator.url}/_control/stats").status_code == 200


def test_evenly_spaced_requests_at_the_limit_are_never_refused() -> None:
    moments = itertools.count()
    bucket = RequestBucket(50, clock=lambda: next(moments) / 50)
    assert all(bucket.wait_s() == 0 for _ in range(1000))


def test_a_burst_beyond_the_limit_waits_for_its_turn() -> None:
    bucket = RequestBucket(2, clock=lambda: 0.0)
    assert [bucket.wait_s() for _ in range(3)] == [0, 0, 0.5]


def test_latency_is_added_to_every_request() -> None:
    with EmulatorThread(EmulatorConfig(port=0, latency_s=0.2)) as emulator:
        began = time.monotonic()
        httpx2.get(f"{emulator.url}/v1/models", headers=KEY)
        assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("wrong", [{"latency_s": -1}, {"requests_per_second": 0}], ids=str)
def test_a_configuration_that_would_hang_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EmulatorConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_command_prints_its_url_and_ends_on_sigterm() -> None:
    command = [sys.executable, "-m", "labelmill_ops.emulator", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("Mistral emulator at http://127.0.0.1:")
        assert "not Mistral" in line
        assert httpx2.get(f"{line.split()[3]}/_control/stats").json()["texts"] == 0
        process.terminate()
        assert process.wait(timeout=60) == 0


@pytest.mark.slow
def test_a_taken_port_is_said_in_one_sentence(emulator: EmulatorThread) -> None:
    command = [sys.executable, "-m", "labelmill_ops.emulator", "--port", emulator.url.rpartition(":")[2]]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: the emulator cannot listen on 127.0.0.1:")
    assert len(ended.stderr.splitlines()) == 1


def test_a_client_that_goes_while_its_request_is_read_leaves_no_traceback(
    emulator: EmulatorThread, caplog: pytest.LogCaptureFixture
) -> None:
    address = urlsplit(emulator.url)
    head = "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer any\r\nContent-Length: 9999\r\n\r\n{"
    for how in ("reset", "closed"):
        with socket.create_connection((str(address.hostname), address.port or 0)) as client:
            client.sendall(head.encode())
            if how == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    deadline = time.monotonic() + 60
    while emulator.stats()["statuses"].get("400", 0) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert emulator.stats()["statuses"] == {"400": 2}
    assert [record.getMessage() for record in caplog.records if record.name.startswith("aiohttp")] == []
