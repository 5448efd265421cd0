"""`labelmill up`, the real thing: every process, on free ports, in a folder of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from labelmill.core.database import check_tables, connect
from labelmill.core.queue.application import QueueApp
from labelmill.core.running_stack import running_stack
from labelmill.core.settings import load_producer_settings, load_settings
from labelmill_ops.ports import answers, free_port
from labelmill_ops.stack.local import EMULATOR_KEY, StackOptions, plan_stack

pytestmark = [pytest.mark.slow, pytest.mark.acceptance]


@contextmanager
def _up(folder: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "labelmill", "--data-dir", str(folder), "up", *flags],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)  # the guard ends the children
        process.communicate()


def _until(condition: Callable[[], Any], timeout_s: float = 120) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


def _processes_of(folder: Path) -> dict[int, str]:
    """The pids and command lines of every process whose environment or arguments name the folder."""
    listed = subprocess.run(["ps", "axeww", "-o", "pid=,command="], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in listed.splitlines():
        pid, _, command = line.strip().partition(" ")
        if str(folder) in command and int(pid) != os.getpid() and " ps axeww" not in f" {command}":
            found[int(pid)] = command
    return found


def _is_worker(name: str, command: str) -> bool:
    return f"-n {name}@" in command


def _check_redis_is_closed(folder: Path, url: str) -> None:
    password = str(urlsplit(url).password)
    assert len(password) >= 24
    with (
        redis.Redis.from_url(url.replace(f":{password}@", "")) as stranger,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        stranger.ping()
    for path in (folder / "stack.json", folder / "redis" / "redis.conf"):
        assert path.stat().st_mode & 0o777 == 0o600
    shown = subprocess.run(["ps", "axww", "-o", "command="], capture_output=True, text=True, check=True).stdout
    assert password not in shown


def test_the_stack_serves_revives_a_killed_worker_and_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with _up(folder, "--emulator", "--flower-port", str(free_port()), "--worker-processes", "2") as up:
        stack = _until(lambda: running_stack(folder) or up.poll() is not None)
        assert up.poll() is None, up.communicate()[1]

        settings = load_producer_settings(data_dir=str(folder))
        assert settings.broker_url == stack["broker_url"]
        assert "MISTRAL_API_KEY" not in (folder / "stack.json").read_text()
        _check_redis_is_closed(folder, settings.broker_url)
        engine = connect(settings.sql_url)
        check_tables(engine)
        engine.dispose()
        with urllib.request.urlopen(f"{stack['flower_url']}/healthcheck") as answer:
            assert answer.status == 200

        app = QueueApp.make(settings, set_as_current=False)
        node = f"worker1@{socket.gethostname()}"
        (victim,) = (pid for pid, command in _processes_of(folder).items() if _is_worker("worker1", command))
        os.kill(victim, signal.SIGKILL)
        _until(
            lambda: any(
                pid != victim and _is_worker("worker1", command) for pid, command in _processes_of(folder).items()
            )
        )
        _until(lambda: app.control.ping(destination=[node], timeout=0.5))
        app.close()

        up.send_signal(signal.SIGTERM)
        said = up.communicate(timeout=60)[1]
        assert up.returncode == 0, said
        assert "worker1 ended (SIGKILL); starting it again" in said
    assert running_stack(folder) is None
    assert not (folder / "stack.json").exists()
    _until(lambda: not _processes_of(folder))


def test_a_stack_that_is_killed_takes_its_processes_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with _up(folder, "--no-flower", "--worker-processes", "1") as up:
        stack = _until(lambda: running_stack(folder) or up.poll() is not None)
        assert up.poll() is None, up.communicate()[1]
        redis_port = urlsplit(stack["broker_url"]).port
        assert redis_port is not None
        assert len(_processes_of(folder)) > 1
        assert answers(redis_port)

        second = subprocess.run(
            [sys.executable, "-m", "labelmill", "--data-dir", str(folder), "up"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 2
        assert "another `labelmill up` runs on" in second.stderr

        up.send_signal(signal.SIGKILL)
        up.wait()
        _until(lambda: not _processes_of(folder) and not answers(redis_port))
        assert running_stack(folder) is None


def test_a_port_that_is_taken_is_named_with_its_flag(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        command = [sys.executable, "-m", "labelmill", "--data-dir", str(tmp_path / "data"), "up", "--flower-port", port]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert f"port {port} is taken: choose another with --flower-port" in refused.stderr.replace("\n", " ")


def test_only_workers_are_handed_keys_and_only_who_needs_it_an_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", "a-mistral-key")
    monkeypatch.setenv("LABELMILL_DATABASE_URL", f"sqlite:///{tmp_path}/a-database.db")
    Path(".env").write_text("WANDB_API_KEY=a-wandb-key\n")
    told = {}
    for emulator in (False, True):
        stack = plan_stack(load_settings(data_dir=str(tmp_path)), StackOptions(emulator=emulator, worker_processes=1))
        told |= {spec.name: spec.environment for spec in (stack.redis, *stack.rest) if spec}
        key = EMULATOR_KEY if emulator else "a-mistral-key"
        assert (told["worker1"]["MISTRAL_API_KEY"], told["worker1"]["WANDB_API_KEY"]) == (key, "a-wandb-key")
    assert told.keys() == {"redis", "worker1", "flower", "emulator"}

    def holders_of(secret: str) -> set[str]:
        return {name for name, environment in told.items() if any(secret in value for value in environment.values())}

    assert holders_of("a-mistral-key") == set()  # the emulator needs no real one
    assert holders_of("a-wandb-key") == holders_of("a-database") == {"worker1"}
    assert holders_of(str(urlsplit(stack.settings.broker_url).password)) == {"worker1", "flower"}
