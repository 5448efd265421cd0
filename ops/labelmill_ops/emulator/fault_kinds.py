"""The faults an emulator can show, how they are written, and when each strikes. Pure but for the plan's own dice.

A fault is written `KIND[@CALL[,CALL]][xTIMES][:PROBABILITY][:PARAMETER]`: `502:0.1`, `slow@classify:0.05:20`,
`500@create-jobx2`. Unset, a fault strikes every request of its calls, for ever.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

#: Calls that a fault can be narrowed to, by method and path.
CALLS: dict[tuple[str, str], str] = {
    ("POST", "/v1/classifications"): "classify",
    ("POST", "/v1/chat/classifications"): "classify-chats",
    ("POST", "/v1/embeddings"): "embed",
    ("POST", "/v1/chat/completions"): "chat",
    ("POST", "/v1/moderations"): "moderate",
    ("POST", "/v1/chat/moderations"): "moderate-chats",
    ("POST", "/v1/files"): "upload",
    ("GET", "/v1/files"): "list-files",
    ("GET", "/v1/files/{file_id}"): "get-file",
    ("GET", "/v1/files/{file_id}/content"): "download",
    ("DELETE", "/v1/files/{file_id}"): "delete-file",
    ("POST", "/v1/fine_tuning/jobs"): "create-job",
    ("GET", "/v1/fine_tuning/jobs"): "list-jobs",
    ("GET", "/v1/fine_tuning/jobs/{job_id}"): "get-job",
    ("POST", "/v1/fine_tuning/jobs/{job_id}/start"): "start-job",
    ("POST", "/v1/fine_tuning/jobs/{job_id}/cancel"): "cancel-job",
    ("POST", "/v1/batch/jobs"): "create-batch",
    ("GET", "/v1/batch/jobs"): "list-batches",
    ("GET", "/v1/batch/jobs/{job_id}"): "get-batch",
    ("POST", "/v1/batch/jobs/{job_id}/cancel"): "cancel-batch",
    ("DELETE", "/v1/batch/jobs/{job_id}"): "delete-batch",
    ("GET", "/v1/models"): "list-models",
    ("GET", "/v1/models/{model_id}"): "get-model",
}
BATCH_LINE = "batch-line"  #: A request within a batch job; what strikes all calls does not strike it.
CALL_NAMES = (*CALLS.values(), BATCH_LINE)
INFERENCE = frozenset({"classify", "classify-chats", "embed", "chat", "moderate", "moderate-chats"})
CHAT = frozenset({"chat"})
CREATE_JOB = frozenset({"create-job"})
CREATE_BATCH = frozenset({"create-batch"})
LINES = frozenset({BATCH_LINE})
JOB_STATUSES = ("QUEUED", "VALIDATING", "VALIDATED", "RUNNING")
BATCH_STATUSES = ("QUEUED", "RUNNING", "CANCELLATION_REQUESTED")


class Stage(Enum):
    """Where on a request's way a fault strikes."""

    BEFORE = "before"  #: Nothing is carried out, nothing is billed.
    ANSWER = "answer"  #: Carried out and billed; the answer does not arrive as it should.
    CONTENT = "content"  #: As before, and the answer looks correct at first sight.
    JOB = "job"  #: The fate of a fine-tuning or batch job, decided when it is created.
    LINE = "line"  #: What becomes of one request of a batch job.


class UnknownFaultError(ValueError):
    """A fault that is not written as it should be; its words are for the user."""


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault. `default` is its parameter when none is given; None: it takes none."""

    summary: str
    stage: Stage
    default: str | None = None
    check: Callable[[str], bool] = lambda _: False
    calls: frozenset[str] | None = None  #: Calls it strikes unless it is narrowed; None: all.


def _seconds(text: str) -> bool:
    try:
        return 0 <= float(text) < math.inf
    except ValueError:
        return False


def _status(text: str) -> bool:
    return text.isdecimal() and 400 <= int(text) <= 599


def _share(text: str) -> bool:
    return _seconds(text) and float(text) <= 1


def _seconds_or_none(text: str) -> bool:
    return text == "none" or _seconds(text)


def _one_of(*words: str) -> Callable[[str], bool]:
    return lambda text: text in words


KINDS: dict[str, FaultKind] = {
    "410": FaultKind("retired: gone for good", Stage.BEFORE),
    "429": FaultKind("refused for its rate; PARAMETER: Retry-After in s, or none", Stage.BEFORE, "1", _seconds_or_none),
    "429-storm": FaultKind(
        "for PARAMETER s everything is refused for its rate, without Retry-After", Stage.BEFORE, "5", _seconds
    ),
    "402": FaultKind("billing is not enabled", Stage.BEFORE, calls=CREATE_BATCH),
    "500": FaultKind("internal error", Stage.BEFORE),
    "502": FaultKind("bad gateway, an HTML page", Stage.BEFORE),
    "503": FaultKind("unavailable; PARAMETER: Retry-After in s, or none", Stage.BEFORE, "none", _seconds_or_none),
    "outage": FaultKind("for PARAMETER s everything gets 503", Stage.BEFORE, "10", _seconds),
    "refused": FaultKind(
        "for PARAMETER s every connection is cut and no new one accepted", Stage.BEFORE, "3", _seconds
    ),
    "cut": FaultKind("the connection is reset before any answer", Stage.BEFORE),
    "hang": FaultKind("no answer for PARAMETER s, then the connection is reset", Stage.BEFORE, "600", _seconds),
    "reset": FaultKind("the connection is reset in the middle of the answer", Stage.ANSWER),
    "slow": FaultKind("the answer drips in over PARAMETER s", Stage.ANSWER, "120", _seconds),
    "truncated": FaultKind("the first half of the answer, as if it were all", Stage.ANSWER),
    "malformed": FaultKind("status 200 with broken JSON", Stage.ANSWER),
    "html": FaultKind("status 200 with an HTML page", Stage.ANSWER),
    "too-few": FaultKind("one result is missing", Stage.CONTENT, calls=INFERENCE),
    "too-many": FaultKind("one result comes twice", Stage.CONTENT, calls=INFERENCE),
    "unknown-label": FaultKind("a label the model does not have", Stage.CONTENT, calls=INFERENCE),
    "answers-too-few": FaultKind("of several texts in a prompt one has no answer", Stage.CONTENT, calls=CHAT),
    "answers-too-many": FaultKind("of several texts in a prompt one has two answers", Stage.CONTENT, calls=CHAT),
    "answers-swapped": FaultKind("answers to several texts in another order", Stage.CONTENT, calls=CHAT),
    "answers-repeated": FaultKind("two answers to several texts have one number", Stage.CONTENT, calls=CHAT),
    "nan": FaultKind("a score that is NaN", Stage.CONTENT, calls=INFERENCE),
    "infinity": FaultKind("a score no float can hold (1e999)", Stage.CONTENT, calls=INFERENCE),
    "lost": FaultKind(
        "carried out, but the answer is PARAMETER: 502, reset or hang",
        Stage.ANSWER,
        "502",
        _one_of("502", "reset", "hang"),
        CREATE_JOB,
    ),
    "job-stuck": FaultKind(
        "the job never leaves the status PARAMETER", Stage.JOB, "QUEUED", _one_of(*JOB_STATUSES), CREATE_JOB
    ),
    "job-invalid": FaultKind("the job fails validation", Stage.JOB, calls=CREATE_JOB),
    "job-fails": FaultKind("the job fails while it trains", Stage.JOB, calls=CREATE_JOB),
    "job-cancelled": FaultKind(
        "the job is cancelled from outside when it reaches the status PARAMETER",
        Stage.JOB,
        "RUNNING",
        _one_of(*JOB_STATUSES),
        CREATE_JOB,
    ),
    "job-vanishes": FaultKind(
        "the job is gone (404) once it has reached the status PARAMETER",
        Stage.JOB,
        "RUNNING",
        _one_of(*JOB_STATUSES),
        CREATE_JOB,
    ),
    "batch-expires": FaultKind(
        "the batch job expires when the share PARAMETER is answered", Stage.JOB, "0.5", _share, CREATE_BATCH
    ),
    "batch-fails": FaultKind(
        "the batch job fails when the share PARAMETER is answered", Stage.JOB, "0.5", _share, CREATE_BATCH
    ),
    "batch-cancelled": FaultKind(
        "the batch job is cancelled from outside when the share PARAMETER is answered",
        Stage.JOB,
        "0.5",
        _share,
        CREATE_BATCH,
    ),
    "batch-stuck": FaultKind(
        "the batch job stays in the status PARAMETER until it is cancelled",
        Stage.JOB,
        "RUNNING",
        _one_of(*BATCH_STATUSES),
        CREATE_BATCH,
    ),
    "batch-without-files": FaultKind(
        "the batch job ends without its PARAMETER: output, errors or both",
        Stage.JOB,
        "both",
        _one_of("output", "errors", "both"),
        CREATE_BATCH,
    ),
    "batch-results-gone": FaultKind("the files of results are gone (404)", Stage.JOB, calls=CREATE_BATCH),
    "batch-lists-refused": FaultKind("requests with a list of inputs are refused", Stage.JOB, calls=CREATE_BATCH),
    "line-dropped": FaultKind("the result is missing", Stage.LINE, calls=LINES),
    "line-repeated": FaultKind("the result comes twice", Stage.LINE, calls=LINES),
    "line-anonymous": FaultKind("the result has no custom_id", Stage.LINE, calls=LINES),
    "line-failed": FaultKind("the request fails with status PARAMETER", Stage.LINE, "500", _status, LINES),
    "line-refused": FaultKind("the request is refused with status PARAMETER", Stage.LINE, "422", _status, LINES),
}

_WRITTEN = re.compile(
    r"(?P<kind>[a-z0-9-]+?)(?:@(?P<calls>[a-z,-]+?))?(?:x(?P<times>\d+))?(?::(?P<probability>[^:]*))?(?::(?P<parameter>[^:]*))?"
)


@dataclass(frozen=True)
class Fault:
    """One fault to show. Made by `parse_fault`, so its parts fit together."""

    kind: str
    calls: frozenset[str] | None = None
    times: int | None = None  #: How often at most; None: no end.
    probability: float = 1.0
    parameter: str | None = None

    @property
    def stage(self) -> Stage:
        """Where it strikes."""
        return KINDS[self.kind].stage

    @property
    def seconds(self) -> float:
        """The parameter as seconds."""
        return float(self.parameter or 0)

    def strikes(self, call: str) -> bool:
        """Whether requests of this call can be hit."""
        return call != BATCH_LINE if self.calls is None else call in self.calls

    def __str__(self) -> str:
        """The fault as it is written."""
        calls = KINDS[self.kind].calls
        narrowed = f"@{','.join(sorted(self.calls))}" if self.calls is not None and self.calls != calls else ""
        times = "" if self.times is None else f"x{self.times}"
        parameter = "" if self.parameter is None else f":{self.parameter}"
        return f"{self.kind}{narrowed}{times}:{self.probability:g}{parameter}"


def parse_fault(written: str) -> Fault:
    """Read a fault as users write it. Raises UnknownFaultError saying what is wrong and what there is."""
    form = _WRITTEN.fullmatch(written.strip())
    name = form["kind"] if form else re.split(r"[@:]", written.strip())[0]
    kind = KINDS.get(name)
    if kind is None:
        raise UnknownFaultError(f"there is no fault {name!r}; there are {', '.join(KINDS)}")
    if form is None:
        raise UnknownFaultError(f"{written!r} is not KIND[@CALL][xTIMES][:PROBABILITY][:PARAMETER]")
    calls = frozenset(form["calls"].split(",")) if form["calls"] else kind.calls
    if unknown := (calls or frozenset()) - set(CALL_NAMES):
        raise UnknownFaultError(f"there is no call {min(unknown)!r}; there are {', '.join(CALL_NAMES)}")
    if kind.stage is Stage.JOB and calls != kind.calls:
        raise UnknownFaultError(f"{name} is the fate of a job: it strikes {min(kind.calls or CALL_NAMES)} alone")
    if kind.stage is Stage.LINE and calls != LINES:
        raise UnknownFaultError(f"{name} strikes {BATCH_LINE} alone")
    if BATCH_LINE in (calls or ()) and kind.stage not in (Stage.LINE, Stage.CONTENT):
        raise UnknownFaultError(f"{name} strikes whole requests, and no {BATCH_LINE}")
    try:
        probability = float(form["probability"] or 1)
    except ValueError:
        probability = math.nan
    if not 0 <= probability <= 1:
        raise UnknownFaultError(f"the probability in {written!r} must be a number from 0 to 1")
    parameter = form["parameter"] or kind.default
    if form["parameter"] and kind.default is None:
        raise UnknownFaultError(f"{name} takes no parameter: {kind.summary}")
    if form["parameter"] and not kind.check(form["parameter"]):
        raise UnknownFaultError(f"{form['parameter']!r} does not fit {name}: {kind.summary}")
    return Fault(name, calls, int(form["times"]) if form["times"] else None, probability, parameter)


class FaultPlan:
    """Which faults are on, and the seeded dice that say when each strikes. Storms are remembered here."""

    def __init__(self, faults: Iterable[Fault] = (), seed: int = 0) -> None:
        """Arm the faults."""
        self.arm(faults, seed)

    def arm(self, faults: Iterable[Fault], seed: int) -> None:
        """Replace all faults and start the dice anew; what was in the middle of striking goes on."""
        self.seed = seed
        self.faults = tuple(faults)
        self.struck = [0] * len(self.faults)
        self.storm: tuple[Fault, float] | None = None  #: A fault that holds everything back, and until when.
        self._dice = random.Random(seed)

    def draw(self, call: str, *, job: bool = False) -> Fault | None:
        """The fault that strikes this request, if any: the first on the list whose dice fall so.

        `job` asks for the fate of a fine-tuning job instead.
        """
        for number, fault in enumerate(self.faults):
            if (fault.stage is Stage.JOB) is not job or not fault.strikes(call):
                continue
            if fault.times is not None and self.struck[number] >= fault.times:
                continue
            if self._dice.random() < fault.probability:
                self.struck[number] += 1
                return fault
        return None

    def as_json(self) -> dict[str, Any]:
        """What is on, and how often each has struck."""
        armed = [
            {"fault": str(fault), "struck": struck} for fault, struck in zip(self.faults, self.struck, strict=True)
        ]
        return {"seed": self.seed, "faults": armed}


def described_kinds() -> str:
    """All kinds, a line each, for people."""
    width = max(map(len, KINDS))
    return "\n".join(
        f"{name:<{width}}  {kind.summary}" + (f" (default {kind.default})" if kind.default else "")
        for name, kind in KINDS.items()
    )
