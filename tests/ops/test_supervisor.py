"""The supervisor: children live as long as it does, come back when they die, and stop in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from labelmill_ops.stack.child import Child, ChildSpec, Drain
from labelmill_ops.stack.guard import Guard
from labelmill_ops.stack.supervisor import StartFailed, Supervisor

_POLITE = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye', flush=True)))\n"
_WAIT = "while True: signal.pause()"


def _until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def _spec(name: str, code: str, drain: Drain = Drain.WORK) -> ChildSpec:
    return ChildSpec(name, [sys.executable, "-S", "-c", code], dict(os.environ), lambda: True, drain)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # a zombie whose parent is gone counts as ended
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(status.strip()) and not status.strip().startswith("Z")


def test_a_child_that_dies_is_started_again_after_growing_pauses(tmp_path: Path) -> None:
    guard = Guard(1)
    child = Child(_spec("brief", "raise SystemExit(3)"), tmp_path, guard)
    child.start()
    told: list[str] = []

    def two_ends_were_told() -> bool:
        if line := child.keep_alive():
            told.append(line)
        return len(told) == 2

    _until(two_ends_were_told)
    assert told == [
        "brief ended (exit 3); starting it again in 0.5 s",
        "brief ended (exit 3); starting it again in 1 s",
    ]
    assert child.restarts == 1
    guard.close()


def test_a_child_that_cannot_start_ends_the_start_with_its_last_words(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, lambda _: None)
    spec = ChildSpec(
        "broken",
        [sys.executable, "-c", "raise SystemExit('no such host')"],
        dict(os.environ),
        lambda: False,
        Drain.WORK,
    )
    with pytest.raises(StartFailed, match=r"broken did not start \(exit 1\): no such host"):
        supervisor.start([spec], timeout_s=60)
    supervisor.drain(1)


def test_workers_have_ended_before_redis_is_asked_to(tmp_path: Path) -> None:
    order = tmp_path / "order"
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep({delay}); open({path!r}, 'a').write('{name} '); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('ready', flush=True)\n" + _WAIT
    )
    supervisor = Supervisor(tmp_path / "logs", lambda _: None)
    specs = [
        _spec(name, code.format(delay=delay, path=str(order), name=name), drain)
        for name, delay, drain in (("redis", 0, Drain.BROKER), ("flower", 0, Drain.WATCH), ("worker", 0.5, Drain.WORK))
    ]
    supervisor.start(specs, timeout_s=60)
    _until(lambda: all(child.last_words() == "ready" for child in supervisor.children))
    supervisor.drain(60)
    assert order.read_text().split() == ["worker", "flower", "redis"]


def test_a_worker_that_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    told: list[str] = []
    supervisor = Supervisor(tmp_path, told.append)
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)\n" + _WAIT
    supervisor.start([_spec("worker1", stubborn)], timeout_s=60)
    (child,) = supervisor.children
    _until(lambda: child.last_words() == "ready")
    pid = child.pid
    assert pid
    supervisor.drain(0.2)
    assert told == ["killing worker1: it took too long"]
    assert not _is_alive(pid)


def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time, os; from pathlib import Path\n"
        "from labelmill_ops.stack.child import ChildSpec, Drain\n"
        "from labelmill_ops.stack.supervisor import Supervisor\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "supervisor = Supervisor(folder / 'logs', print)\n"
        f"code = {(_POLITE + _WAIT)!r}\n"
        "supervisor.start([ChildSpec('worker1', [sys.executable, '-S', '-c', code], dict(os.environ), lambda: True,"
        " Drain.WORK)], 60)\n"
        "print(supervisor.children[0].pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout
        pid = int(supervisor.stdout.readline())
        assert _is_alive(pid)
        supervisor.send_signal(signal.SIGKILL)
    _until(lambda: not _is_alive(pid))
