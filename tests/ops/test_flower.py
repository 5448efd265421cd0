"""Flower as its users start it, from an empty folder: closed off loopback, readable ids, looking only."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flower.options  # noqa: F401 - defines the options that the file reads
import pytest
import redis
from tornado.options import options

from labelmill_ops.ports import free_port
from labelmill_worker.runtime.flower import CONFIG
from labelmill_worker.runtime.flower.access import why_not_to_start

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PLAIN = ("celery", "-A", "labelmill_worker.app", "flower")
OWN = ("labelmill", "flower")


def _readme_line() -> tuple[str, ...]:
    (line,) = re.findall(r"^\$ (celery .* flower)\b.*$", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    return tuple(shlex.split(line))


def _start(command: tuple[str, ...], **environment: str) -> subprocess.Popen[str]:
    # as a user's shell finds it; the working folder of a test is empty
    return subprocess.Popen(
        [str(BIN / command[0]), *command[1:]],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextlib.contextmanager
def _running(command: tuple[str, ...], port: int, **environment: str) -> Iterator[None]:
    process = _start(command, **({"LABELMILL_BROKER_URL": "redis://127.0.0.1:1/0"} | environment))
    try:
        deadline = time.monotonic() + 60
        while not _accepts("127.0.0.1", port):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "Flower does not listen"
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.communicate()


def _refused(command: tuple[str, ...], **environment: str) -> str:
    process = _start(command, **environment)
    try:
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 2, said
    assert "Traceback" not in said
    return said


def _accepts(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def _addresses_of_this_machine() -> list[str]:
    """Of its other interfaces; 127.0.0.2 shows it where there are none, for it is loopback too but not 127.0.0.1."""
    return [
        "127.0.0.2",
        *{str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"},
    ]


def _status(port: int, credentials: str = "") -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/workers")
    if credentials:
        request.add_header("Authorization", f"Basic {base64.b64encode(credentials.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
@pytest.mark.parametrize("command", [_readme_line(), OWN])
@pytest.mark.slow
def test_the_documented_command_listens_on_loopback_alone(command: tuple[str, ...]) -> None:
    assert not list(Path().iterdir())
    port = free_port()
    with _running(command, port, FLOWER_PORT=str(port)):
        assert [host for host in _addresses_of_this_machine() if _accepts(host, port)] == []
        assert _status(port) == 200
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("command", "environment"),
    [
        ((*PLAIN, "--address=0.0.0.0"), {"FLOWER_BASIC_AUTH": ""}),
        ((*PLAIN, "--address=::", "--basic_auth=:"), {}),
        (PLAIN, {"FLOWER_ADDRESS": "0.0.0.0"}),
        ((*OWN, "--host", "0.0.0.0"), {}),
    ],
)
@pytest.mark.slow
def test_elsewhere_flower_does_not_start_without_a_password(
    command: tuple[str, ...], environment: dict[str, str]
) -> None:
    port = free_port()
    said = _refused(command, FLOWER_PORT=str(port), **environment)
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "FLOWER_BASIC_AUTH=user:password" in line


@pytest.mark.parametrize("command", [(*PLAIN, "--address=0.0.0.0"), (*OWN, "--host", "0.0.0.0")])
@pytest.mark.slow
def test_elsewhere_the_password_is_asked_for(command: tuple[str, ...]) -> None:
    port = free_port()
    Path(".env").write_text("FLOWER_BASIC_AUTH=operator:from-the-file\n")
    with _running(command, port, FLOWER_PORT=str(port)):
        assert _status(port) == _status(port, "operator:wrong") == _status(port, ":") == 401
        assert _status(port, "operator:from-the-file") == 200


@pytest.mark.slow
def test_flags_and_variables_of_flower_go_before_the_shipped_configuration() -> None:
    port = free_port()
    with (
        _running((*PLAIN, f"--port={port}"), port, FLOWER_URL_PREFIX="queue", FLOWER_CONF=""),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/queue/workers", timeout=20) as answer,
    ):
        assert answer.status == 200


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert f"127.0.0.1:{port}" in _refused((*OWN, "--port", port))


@pytest.mark.slow
def test_flower_gets_no_key_and_no_database(tmp_path: Path) -> None:
    port = free_port()
    secret = {
        "MISTRAL_API_KEY": "a-key-of-mine",
        "WANDB_API_KEY": "a-key-of-mine",
        "LABELMILL_DATABASE_URL": f"sqlite:///{tmp_path}/a-key-of-mine.db",
    }
    with _running(OWN, port, FLOWER_PORT=str(port), **secret):
        shown = subprocess.run(["ps", "axeww", "-o", "command="], capture_output=True, text=True, check=True).stdout
        (line,) = [line for line in shown.splitlines() if f"FLOWER_PORT={port}" in line]
        assert "a-key-of-mine" not in line


@pytest.fixture
def options_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    def at(**environment: str) -> dict[str, Any]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(type(options), "add_parse_callback", lambda *_: None)
        return runpy.run_path(str(CONFIG))

    return at


def test_the_shipped_configuration_looks_only_and_is_bounded(options_at: Any) -> None:
    found = options_at()
    assert (found["address"], found["read_only"], found["max_tasks"]) == ("127.0.0.1", True, 20_000)
    assert found["persistent"] is False
    told = options_at(FLOWER_MAX_TASKS="5", FLOWER_READ_ONLY="off")
    assert not {"max_tasks", "read_only"} & told.keys()


@pytest.mark.parametrize("address", ["0.0.0.0", "10.1.2.3", "example.org", "::", ""])
def test_an_address_that_others_reach_needs_a_password_or_a_login(address: str) -> None:
    def reason(**given: Any) -> str | None:
        return why_not_to_start(
            SimpleNamespace(**{"address": address, "basic_auth": None, "auth": "", "unix_socket": ""} | given)
        )

    assert "FLOWER_BASIC_AUTH" in (reason() or "")
    assert reason(basic_auth=["operator:secret"]) is None
    assert reason(auth=".*@example.org") is None
    assert reason(unix_socket="/run/flower.sock") is None
    assert reason(basic_auth=["operator:secret", ""]) is not None


@pytest.mark.parametrize(
    ("kwargs", "shown"),
    [
        ("{'job_id': 'batch_01', 'v': 1, 'chunk': 7}", "batch_01 chunk 7"),
        ("{'job_id': 'train_01', 'v': 1}", "train_01"),
        ("{}", "{}"),
        ("{'job_id': 'cut sho...", "{'job_id': 'cut sho..."),
        (None, None),
    ],
)
def test_a_tasks_arguments_read_as_what_an_operator_looks_up(options_at: Any, kwargs: str, shown: str) -> None:
    task = options_at()["format_task"](SimpleNamespace(kwargs=kwargs))
    assert task.kwargs == shown


def _page(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=30) as answer:
        return str(answer.read().decode())


def test_every_queue_is_listed_with_the_messages_of_all_priorities_before_any_worker_starts(redis_url: str) -> None:
    port = free_port()
    with redis.Redis.from_url(redis_url) as server:
        for queue, priority, count in [("prepare", 3, 2), ("train", 0, 1), ("classify", 0, 1), ("classify", 6, 4)]:
            key = f"{queue}\x06\x16{priority}" if priority else queue
            server.rpush(key, *(["{}"] * count))
    with _running(PLAIN, port, LABELMILL_BROKER_URL=redis_url, FLOWER_PORT=str(port)):
        page = _page(port, "broker")
        rows = re.findall(r"<tr id=.*?</tr>", page, re.DOTALL)
        assert [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)[:2] for row in rows] == [
            ["classify", "5"],
            ["prepare", "2"],
            ["train", "1"],
        ]
        for made in (page, _page(port, "tasks")):
            assert "nth-child(-n+2)" in made.partition("</head>")[0], "tables are cut off on a phone"


def test_the_first_columns_of_tasks_are_those_that_a_phone_shows() -> None:
    columns = runpy.run_path(str(CONFIG))["tasks_columns"].split(",")
    assert columns[:3] == ["name", "kwargs", "state"]
