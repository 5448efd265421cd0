"""`labelmill doctor` and a real worker: what Mistral says to the worker's key, even when it says nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from forked_workers import ForkedCelery
from strict_mistral import StrictMistral

from labelmill_ops.embedded_redis import EmbeddedRedis

pytestmark = pytest.mark.acceptance
KEY = "a-distinctive-key-4711"


async def _answers(request: web.Request) -> None:
    del request


async def _refuses(request: web.Request) -> web.Response:
    """As a proxy that repeats what it was sent."""
    sent = request.headers["Authorization"]
    return web.json_response({"message": f"bad key {sent}"}, status=401, headers={"X-Echo": sent})


async def _hangs(request: web.Request) -> None:
    del request
    await asyncio.sleep(60)


_LOOKS = {"answers": _answers, "refuses": _refuses, "hangs": _hangs}


@contextlib.contextmanager
def _worker(folder: Path, variables: dict[str, str], *, so_many: int = 1) -> Iterator[None]:
    """A worker of the name that Celery gives one that has none; it ends when it is told to. `so_many` write the log."""
    command = ["-A", "labelmill_worker.app", "worker", "-Q", "prepare,classify", "-c", "1"]
    worker = ForkedCelery(command, variables | {"MISTRAL_API_KEY": KEY}, folder / "worker.log", folder)
    try:
        _wait_until_ready(folder / "worker.log", so_many)
        yield
        worker.terminate()
        assert worker.wait(60) == 0
    finally:
        worker.kill()


def _wait_until_ready(log: Path, count: int) -> None:
    """Earlier a signal would end a worker as if it had no handler for it."""
    deadline = time.monotonic() + 120
    while not log.exists() or log.read_text().count(" ready.") < count:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def _doctor(environment: dict[str, str]) -> tuple[int, dict[str, Any], str]:
    """The exit code, the checks by name, and all that was printed."""
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "labelmill", "doctor", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert time.monotonic() - started < 60
    checks = {check["name"]: check for check in json.loads(ended.stdout)["checks"]}
    return ended.returncode, checks, ended.stdout + ended.stderr


@pytest.fixture
def environment(request: pytest.FixtureRequest, tmp_path: Path, sqlite_template: Path) -> Iterator[dict[str, str]]:
    redis = EmbeddedRedis(tmp_path / "redis")
    redis.start()
    (tmp_path / "jobs.db").write_bytes(sqlite_template.read_bytes())
    with StrictMistral() as mistral:
        mistral.models["mistral-embed"], mistral.control_plane_reply = False, _LOOKS[request.param]
        variables = os.environ | {
            "LABELMILL_BROKER_URL": redis.url,
            "LABELMILL_DATABASE_URL": f"sqlite:///{tmp_path / 'jobs.db'}",
            "LABELMILL_MISTRAL_URL": mistral.url,
            "LABELMILL_DATA_DIR": str(tmp_path / "data"),
        }
        with _worker(tmp_path, variables):
            yield variables
    assert KEY not in (tmp_path / "worker.log").read_text()
    redis.stop()


@pytest.mark.parametrize(
    ("environment", "code", "status", "words"),
    [
        ("answers", 0, "ok", "can train by embedding, prompt, not by factory"),
        ("refuses", 5, "failed", "Mistral refused the key"),
        ("hangs", 1, "failed", "Mistral did not answer within 4 s"),
    ],
    indirect=["environment"],
)
def test_mistral_is_asked_by_the_worker(environment: dict[str, str], code: int, status: str, words: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        found, checks, said = _doctor(environment)
        if checks["workers"]["status"] == "ok":
            break
        assert time.monotonic() < deadline, said
    assert checks["mistral"]["status"] == status, said
    assert words in checks["mistral"]["summary"]
    assert found == code
    assert (checks["queues"]["status"], checks["queues"]["remedy"]) == ("warning", "start a worker with -Q train")
    assert KEY not in said


@pytest.mark.parametrize("environment", ["answers"], indirect=True)
def test_a_second_worker_of_the_same_name_is_noticed_and_its_start_drops_no_message(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with _worker(tmp_path, environment, so_many=2):
        deadline = time.monotonic() + 90
        while True:
            _, checks, said = _doctor(environment)
            if checks.get("worker names", {}).get("status") == "warning":
                break
            assert time.monotonic() < deadline, said
        assert checks["dead letters"]["status"] == "ok"
    _, checks, said = _doctor(environment)
    assert checks["lost workers"]["status"] == "ok", said  # it ended in order
    log = (tmp_path / "worker.log").read_text()
    assert '"level": "error"' not in log, log
