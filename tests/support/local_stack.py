"""A local stack with the emulator, as `labelmill up` starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labelmill.core.running_stack import running_stack
from labelmill_ops.ports import free_port


def clean_environment() -> dict[str, str]:
    """This process' environment without settings."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LABELMILL_", "FLOWER_")) and name != "MISTRAL_API_KEY"
    }


@contextmanager
def running_up(folder: Path) -> Iterator[None]:
    """A stack on this data folder."""
    options = ["--data-dir", str(folder), "up", "--emulator", "--flower-port", str(free_port())]
    up = subprocess.Popen(
        [sys.executable, "-m", "labelmill", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=clean_environment(),
    )
    try:
        deadline = time.monotonic() + 120
        while running_stack(folder) is None:
            assert up.poll() is None, "the stack did not start"
            assert time.monotonic() < deadline, "the stack did not start in time"
            time.sleep(0.1)
        yield
    finally:
        up.send_signal(signal.SIGTERM)
        try:
            up.wait(60)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()
