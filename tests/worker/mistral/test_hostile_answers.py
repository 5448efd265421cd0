"""Whatever bytes come from Mistral's side, reading them raises Labelmill's own errors and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmill.contracts.errors import LabelmillError, MalformedAnswer, RequestRefused
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.head import Head
from labelmill_worker.inference.models.version import ModelVersion
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies.chat_prompt import ChatPrompt
from labelmill_worker.inference.strategies.embedding import Embedding
from labelmill_worker.inference.strategies.embedding_head import EmbeddingHead
from labelmill_worker.inference.strategies.list_classification import ListClassification
from labelmill_worker.inference.strategies.strategy import Strategy
from labelmill_worker.mistral.batch_jobs import SdkBatchJobs
from labelmill_worker.mistral.control_plane import SdkControlPlane
from labelmill_worker.mistral.http_errors import error_for_status, retry_after_s
from labelmill_worker.mistral.realtime import RealtimeInference
from labelmill_worker.mistral.sdk_requests import SdkRequests
from labelmill_worker.ports.inference import Call, Endpoint

TARGETS = LabelSchema((Target("intent", ("play", "stop")),))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_NAMES = st.sampled_from(
    [
        "results",
        "data",
        "index",
        "embedding",
        "choices",
        "message",
        "content",
        "finish_reason",
        "usage",
        "type",
        "text",
        "total_tokens",
        "intent",
        "scores",
        "play",
        "stop",
        "id",
        "object",
        "status",
        "created_at",
        "training_files",
        "input_files",
        "endpoint",
        "total_requests",
        "errors",
        "output_file",
        "outputs",
        "custom_id",
        "response",
        "body",
        "metadata",
        "events",
        "checkpoints",
        "detail",
        "loc",
        "msg",
        "error",
        "model",
        "job_type",
        "filename",
    ]
)
_LIKELY = st.recursive(
    _JSON, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=6), max_leaves=20
)
_BODIES = st.one_of(
    st.binary(max_size=300),
    _LIKELY.map(lambda document: orjson.dumps(document, default=str) if _fits(document) else b"1e400"),
    st.sampled_from(
        [
            b"[" * 5000,
            b'{"a":' * 3000,
            b'{"detail":[{"msg":"m","loc":5}]}',
            b'{"detail":[{"msg":"m","loc":{"a":1}}]}',
            b'{"message":"\\ud800"}',
            b'{"message":"a\\u0000b"}',
            b"\xff\xfe\x00",
            b'{"message":' + b"9" * 5000 + b"}",
            b'{"object":"error","message":{"detail":[[[["x"]]]]}}',
        ]
    ),
)
_HEADERS = st.sampled_from(
    [
        b"Retry-After: \xff\xfe",
        b"Retry-After: " + b"9" * 400,
        b"Retry-After: Tue, 99 Nov 9999 99:99:99 +9999",
        b"Retry-After: -1e400",
        b"Retry-After: \t",
        b"Content-Type: text/html; charset=unicode_escape",
        b"X-A: b",
        b"Content-Type: application/json; charset=rot13",
        b"Content-Encoding: gzip",
        b"Content-Encoding: br",
        b"Content-Type: application/json",
        b"Content-Type: application/json; charset=utf-16-le",
        b"Content-Type: \xff",
        b"Transfer-Encoding: chunked",
        b"Location: //[",
        b"Location: /v1/models",
    ]
)


def _fits(document: Any) -> bool:
    with contextlib.suppress(orjson.JSONEncodeError):
        orjson.dumps(document, default=str)
        return True
    return False


class _Raw:
    """Answers every request with the same bytes."""

    def __init__(self) -> None:
        self.answer = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                connection.sendall(self.answer)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(65536)

    def close(self) -> None:
        # wakes the thread that accepts
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture(scope="module")
def raw() -> Iterator[_Raw]:
    server = _Raw()
    yield server
    server.close()


def _bytes_of(status: int, body: bytes, headers: list[bytes]) -> bytes:
    lines = [f"HTTP/1.1 {status} Said".encode(), f"Content-Length: {len(body)}".encode(), b"Connection: close"]
    return b"\r\n".join([*lines, *headers, b"", body])


_ANSWERS = st.builds(_bytes_of, st.one_of(st.just(200), st.integers(100, 999)), _BODIES, st.lists(_HEADERS, max_size=2))


@given(
    status=st.integers(0, 1000),
    body=st.text(st.characters(), max_size=300) | _BODIES.map(lambda body: body.decode("latin1")),
    retry_after=st.none() | st.text(max_size=40),
)
@settings(max_examples=150, deadline=None)
def test_every_answer_has_an_error_that_a_database_can_hold(status: int, body: str, retry_after: str | None) -> None:
    error = error_for_status(status, body, retry_after, ["a-secret"])
    assert isinstance(error, LabelmillError)
    error.message.encode()
    assert "\x00" not in error.message
    assert len(error.message) < 700
    waited_s = retry_after_s(retry_after)
    assert waited_s is None or 0 <= waited_s <= 600


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("[" * 5000, ": " + "[" * 500),
        ('{"detail": [{"loc": 5, "msg": "too long"}]}', ": 5: too long"),
        ('{"detail": [{"loc": null, "msg": "too long"}]}', ": too long"),
        ('{"message": "\\ud800 is no letter\\u0000"}', ": ? is no letter"),
    ],
)
def test_words_that_cannot_be_read_or_kept_are_left_out(body: str, words: str) -> None:
    assert error_for_status(422, body).message == f"Mistral refused the request (status 422){words}"


def _strategies() -> list[Strategy]:
    model = ModelVersion("m@1", "factory", "m", TARGETS, {"system": "s", "answer_schema": {}, "embedding_model": "e"})
    pool = ExamplePool.of(TARGETS, [], np.ones((0, 2), np.float32))
    head = cast("Head", SimpleNamespace(schema=TARGETS, dimensions=2, scores=lambda vectors: [vectors]))
    return [
        ListClassification(model, 100),
        ListClassification(replace(model, schema=None), 100),
        Embedding(model, 100),
        EmbeddingHead(model, 100, head),
        ChatPrompt(model, None),
        ChatPrompt(replace(model, recipe={**model.recipe, "shots": 1}), pool),
    ]


async def _ask(client: RealtimeInference, strategy: Strategy) -> None:
    request, vectors = Request([0], ["text"]), None
    if (call := strategy.vector_call(request)) is not None:
        vectors = strategy.read_vectors(request, await client.send(call))
    reply = await client.send(strategy.call(request, vectors))
    assert reply.tokens >= 0
    strategy.read(request, reply, strategy.schema or strategy.learn(request, reply))


@given(answer=_ANSWERS)
@settings(max_examples=60, deadline=None)
def test_calls_that_carry_texts_raise_nothing_else(raw: _Raw, answer: bytes) -> None:
    raw.answer = answer

    async def ask() -> None:
        client = RealtimeInference(raw.url, "key", timeout_s=5)
        for strategy in _strategies():
            with contextlib.suppress(LabelmillError):
                await _ask(client, strategy)
        await client.close()

    asyncio.run(ask())


@given(answer=_ANSWERS)
@settings(max_examples=25, deadline=None)
def test_the_control_plane_raises_nothing_else(
    raw: _Raw, tmp_path_factory: pytest.TempPathFactory, answer: bytes
) -> None:
    raw.answer = answer
    file = tmp_path_factory.getbasetemp() / "rows.jsonl"
    file.write_bytes(b"{}")
    plane = SdkControlPlane(SdkRequests("key", raw.url, timeout_s=5, read_attempts=1))
    calls = [
        lambda: plane.get_job("job"),
        lambda: plane.find_job("file"),
        lambda: plane.find_files("name"),
        plane.list_models,
        lambda: plane.get_model("model"),
        lambda: plane.upload_file(Path(file), "name", 1),
        lambda: plane.cancel_job("job"),
        lambda: plane.archive_model("model"),
    ]
    for call in calls:
        plane._requests._breaker._faults = 0  # every call is to be made
        with contextlib.suppress(LabelmillError):
            call()
    plane.close()


@given(answer=_ANSWERS)
@settings(max_examples=25, deadline=None)
def test_the_adapter_of_batch_jobs_raises_nothing_else(
    raw: _Raw, tmp_path_factory: pytest.TempPathFactory, answer: bytes
) -> None:
    raw.answer = answer
    file = tmp_path_factory.getbasetemp() / "calls.jsonl"
    file.write_bytes(b"{}")
    requests = SdkRequests("key", raw.url, timeout_s=5, read_attempts=1)
    jobs = SdkBatchJobs(requests)
    calls: list[Callable[[], object]] = [
        lambda: jobs.get("job"),
        lambda: jobs.find({"mark": "m"}, 1.0),
        lambda: jobs.find_files("name"),
        lambda: jobs.upload(file, "name", 1),
        lambda: jobs.create(Endpoint.EMBEDDINGS, "m", file_id="f", metadata={}, timeout_hours=1),
        lambda: jobs.cancel("job"),
        lambda: jobs.delete_job("job"),
        lambda: list(jobs.results("file")),
        lambda: list(jobs.inline_results("job")),
        jobs.check_billing,
    ]
    for call in calls:
        requests._breaker._faults = 0  # every call is to be made
        with contextlib.suppress(LabelmillError):
            call()
    jobs.close()


def test_a_job_with_a_time_or_an_id_that_cannot_be_one_is_a_malformed_answer(raw: _Raw) -> None:
    job = {
        "id": "j\x00",
        "object": "job",
        "job_type": "completion",
        "status": "RUNNING",
        "created_at": 1,
        "model": "m",
        "modified_at": 1,
        "training_files": [],
        "hyperparameters": {},
        "auto_start": False,
    }
    plane = SdkControlPlane(SdkRequests("key", raw.url, timeout_s=5, read_attempts=1))
    for spoilt in ({}, {"id": "job", "created_at": 10**18}):
        raw.answer = _bytes_of(200, orjson.dumps(job | spoilt), [b"Content-Type: application/json"])
        with pytest.raises(MalformedAnswer):
            plane.get_job("job")
    plane.close()


def test_a_retry_after_that_is_not_text_is_no_fault_of_the_request(raw: _Raw) -> None:
    raw.answer = _bytes_of(422, b'{"message":"no"}', [b"Retry-After: \xff"])

    async def ask() -> None:
        client = RealtimeInference(raw.url, "key", timeout_s=5)
        with pytest.raises(RequestRefused, match="no"):
            await client.send(Call(Endpoint.CLASSIFICATIONS, {"model": "m", "input": ["text"]}))
        await client.close()

    asyncio.run(ask())
