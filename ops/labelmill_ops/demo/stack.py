"""A temporary stack, and the commands of a user against it: all as processes, the same way a user would run them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labelmill.contracts.errors import InvalidInput, LabelmillError
from labelmill.core.running_stack import running_stack
from labelmill_ops.held_signals import signals_held
from labelmill_ops.stack.guard import Guard

_READY_TIMEOUT_S, _STOP_TIMEOUT_S = 120.0, 45.0
_MARK = "made-by-labelmill-demo"  # a folder without it belongs to the user and is not cleared
_LABELMILL = (sys.executable, "-m", "labelmill")


class DemoFailed(LabelmillError):
    """A step did not end well; the demo ends with that step's exit code."""

    code = "demo_failed"

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class TemporaryStack:
    """Runs commands in `folder`, on a data folder below it, whatever settings the environment holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.flower_url = ""
        # the demo must not use the user's broker, database or key; the folder holds no .env either
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("LABELMILL_")} | {
            "LABELMILL_DATA_DIR": str(self.data_dir),
            "MISTRAL_API_KEY": "emulator",
        }

    def clear(self) -> None:
        """Make the folder, without what an earlier demo left. Raises InvalidInput: it is not a demo's."""
        mark = self.folder / _MARK
        if self.folder.exists() and any(self.folder.iterdir()) and not mark.exists():
            raise InvalidInput(
                f"{self.folder} is not empty and was not made by `labelmill demo`: choose another --output"
            )
        if running_stack(self.data_dir):
            raise InvalidInput(f"another demo runs in {self.folder}: stop it, or choose another --output")
        shutil.rmtree(self.data_dir, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        mark.touch()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The stack is up inside, and gone afterwards, however this process ends. Raises DemoFailed."""
        log_path = self.folder / "up.log"
        with log_path.open("wb") as log, signals_held():
            guard = Guard(_STOP_TIMEOUT_S)
            up = subprocess.Popen(
                [*_LABELMILL, "up", "--emulator", "--worker-processes", "2"],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            guard.watch(up.pid)
        try:
            self._wait_until_up(up, log_path)
            yield
        finally:
            up.send_signal(signal.SIGTERM)
            try:
                up.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                up.send_signal(signal.SIGTERM)  # the second one: up kills what is left
                with contextlib.suppress(subprocess.TimeoutExpired):
                    up.wait(10)
            guard.close()

    def _wait_until_up(self, up: subprocess.Popen[bytes], log_path: Path) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not (written := running_stack(self.data_dir)):
            if up.poll() is not None or time.monotonic() > deadline:
                said = log_path.read_text(errors="replace").strip().splitlines()
                last = said[-1].removeprefix("error: ") if said else "it said nothing"
                raise DemoFailed(f"the stack did not start: {last} (see {log_path})")
            time.sleep(0.1)
        self.flower_url = str(written.get("flower_url") or "")

    def run(self, step: str, *arguments: str) -> dict[str, Any]:
        """Run one command to its end; its progress goes to our stderr. Returns the document it printed.

        Raises DemoFailed with the step's own reason and exit code.
        """
        command = [*_LABELMILL, *arguments]
        with subprocess.Popen(command, cwd=self.folder, env=self._environment, stdout=subprocess.PIPE) as process:
            try:
                out, _ = process.communicate()
            except KeyboardInterrupt:
                process.kill()
                raise
        document = _last_document(out)
        if process.returncode:
            reason = document.get("error") or "see above"
            raise DemoFailed(f"{step} failed (exit {process.returncode}): {reason}", process.returncode)
        return document


def _last_document(out: bytes) -> dict[str, Any]:
    for line in reversed(out.splitlines()):
        with contextlib.suppress(ValueError):
            document = json.loads(line)
            if isinstance(document, dict):
                return document
    return {}
