"""A producer's command line in the middle of an outage: its exit code, its words, and what comes of its batch."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass

from rig import Rig
from workload import SLOWEST_SUBMISSION_S, Classify

_INTO_OUTAGE_S = 5.0


@dataclass(frozen=True)
class Saying:
    """What `labelmill classify` must end with, and a word of what it must say on stderr."""

    exit_code: int
    words: str


class Commanded(Classify):
    """Submits by `labelmill classify --json` once the first fault has lasted a while. An accepted batch is checked like
    any other, a refused one must not exist."""

    def __init__(self, rig: Rig, name: str, rng: random.Random, saying: Saying) -> None:
        super().__init__(rig, name, rng, count=(150, 250))
        self._saying = saying
        self._process: subprocess.Popen[str] | None = None
        self._began = 0.0

    def advance(self) -> None:
        if self.jobs:
            super().advance()
        elif self._process is None:
            if self.rig.broken_at and time.monotonic() > self.rig.broken_at + _INTO_OUTAGE_S:
                self._start()
        elif self._process.poll() is not None:
            self._check(self._process)

    def _start(self) -> None:
        self._began = time.monotonic()
        under_clock = self.rig.clock.environment if self.rig.clock else {}
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "labelmill",
                "classify",
                str(self.source),
                "--model",
                self.model,
                "--id",
                "id",
                "--json",
            ],
            env=self.rig.environment | under_clock,
            cwd=self.rig.folder,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def _check(self, process: subprocess.Popen[str]) -> None:
        out, err = process.communicate()
        took_s = time.monotonic() - self._began
        said = " ".join(err.split())
        if process.returncode != self._saying.exit_code or self._saying.words not in said or "Traceback" in said:
            self.rig.findings.append(f"`labelmill classify` ended with {process.returncode} and said {said[-400:]!r}")
        if took_s > SLOWEST_SUBMISSION_S:
            self.rig.findings.append(f"`labelmill classify` took {took_s:.0f} s")
        self.rig.notes.append(f"`labelmill classify` ended with {process.returncode} after {took_s:.1f} s")
        if process.returncode == 0:
            self.jobs.append(json.loads(out)["id"])
            self.truth[self.jobs[0]] = self.rows
        else:
            self.ended = True
