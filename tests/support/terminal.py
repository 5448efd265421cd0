"""The command in this process, with stdout and stderr on a terminal."""

from __future__ import annotations

import os
import pty
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass

import pytest

from labelmill.cli import main


@dataclass(frozen=True)
class Shown:
    code: int
    text: str  #: What both wrote to the terminal, in order.

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def on_terminal(*arguments: str, columns: int = 80, encoding: str = "utf-8", **environment: str) -> Shown:
    """Run the command on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    said: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # Linux's word for the end of a terminal
            while block := os.read(ours, 65536):
                said.append(block)

    reader = threading.Thread(target=read)
    reader.start()
    with pytest.MonkeyPatch.context() as patch, open(theirs, "w", encoding=encoding) as stream:  # noqa: PTH123 - a number
        for name, value in {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": str(columns), **environment}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["labelmill", *arguments])
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        with pytest.raises(SystemExit) as ended:
            main.run()
    reader.join(30)
    os.close(ours)
    assert isinstance(ended.value.code, int)
    return Shown(ended.value.code, b"".join(said).decode(encoding).replace("\r\n", "\n"))
