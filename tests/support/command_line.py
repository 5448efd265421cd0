"""The command in this process, in a folder with some files, and how it ended."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NOBODY_REDIS = "redis://127.0.0.1:1/0"
ROWS = [
    {"id": str(n), "text": f"{word} number {n}", "intent": word} for n in range(20) for word in ("play", "stop", "ask")
]


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str
    took_s: float

    @property
    def sentence(self) -> str:
        """The one line on stderr that says what is wrong."""
        (line,) = (line for line in self.err.splitlines() if line.startswith("error: "))
        return line


Run = Callable[..., Ended]


def write_files() -> None:
    """Good and bad sources."""
    good = "".join(json.dumps(row) + "\n" for row in ROWS)
    Path("good.jsonl").write_text(good)
    Path("empty.jsonl").touch()
    Path("header.csv").write_text("id,text,intent\n")
    Path("twice.csv").write_text("text,text\na,b\n")
    Path("latin.csv").write_bytes(b"text,intent\ncaf\xe9,a\n")
    Path("broken.jsonl").write_text("not json\n{\n")
    Path("array.jsonl").write_text('[{"text": "a"}]\n')
    Path("picture.png").write_bytes(b"\x89PNG\r\n")
    Path("fake.parquet").write_bytes(b"PAR1 and no more")
    Path("cut.jsonl.gz").write_bytes(gzip.compress(good.encode())[:60])
    Path("folder").mkdir()
