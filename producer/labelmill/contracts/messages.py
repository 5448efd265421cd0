"""The messages on the queue. They carry ids and counters only: never texts, keys or scores.

A message's fields are the task's keyword arguments, so that Flower shows ids an operator can look up. Unknown fields
are ignored on reading, so that a newer producer can talk to an older worker during a rolling deploy.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from labelmill.contracts.errors import InvalidInput

PREPARE, TRAIN, CLASSIFY, EVALUATE, SWEEP = (
    "labelmill.prepare",
    "labelmill.train",
    "labelmill.classify",
    "labelmill.evaluate",
    "labelmill.sweep",
)  #: Celery task names.

TASK_PREFIX = "labelmill."

QUEUES = ("prepare", "train", "classify")

#: Message priorities on Redis: 0 is served first.
PRIORITY_OF = {"high": 0, "normal": 3, "low": 6}


CONTRACT_VERSION = 1

#: The remote-control command by which `labelmill doctor` asks workers for their health.
INSPECT = "labelmill_doctor"

#: The largest message that a worker reads from Redis; it drops larger ones. Labelmill's own are below 2 KiB.
MAX_MESSAGE_BYTES = 64 * 1024

JobId = Annotated[str, StringConstraints(pattern=r"^[a-z]+_[0-9a-f]{8,40}$")]


class JobMessage(BaseModel):
    """Work on one job: prepare, train and evaluate."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    job_id: JobId
    v: Literal[1] = 1


class ChunkMessage(JobMessage):
    """Classify one chunk of a batch."""

    chunk: int = Field(ge=0, lt=2**31)  #: The chunk's number within the batch.


_JOB_ID = re.compile(r"""["']job_id["']: ?["']([a-z]{1,20}_[0-9a-f]{1,40})["']""")
_CHUNK = re.compile(r"""["']chunk["']: ?(\d{1,10})\b""", re.ASCII)
_READ_CHARS = 1_000


def named_job(arguments: object) -> tuple[str | None, int | None]:
    """The job's id and the chunk's number in the text of a task's arguments, which may be truncated or malformed.

    Such texts come over Redis: they are searched and never evaluated.
    """
    if not isinstance(arguments, str):
        return None, None
    job, chunk = _JOB_ID.search(arguments, 0, _READ_CHARS), _CHUNK.search(arguments, 0, _READ_CHARS)
    return job and job[1], int(chunk[1]) if chunk else None


M = TypeVar("M", bound=JobMessage)


def decode(kind: type[M], arguments: dict[str, Any]) -> M:
    """Validate a task's keyword arguments. Raises InvalidInput."""
    version = arguments.get("v", CONTRACT_VERSION)
    if version != CONTRACT_VERSION:
        raise InvalidInput(
            f"message refused: version {str(version)[:20]} of the contract; this worker reads {CONTRACT_VERSION}"
        )
    try:
        return kind.model_validate(arguments)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise InvalidInput(f"message refused: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
