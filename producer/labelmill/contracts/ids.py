"""Job ids: a prefix for the kind of job, the time of creation, by which ids sort, and 48 random bits."""

from __future__ import annotations

import re
import secrets
import time

from labelmill.contracts.job_kinds import KINDS, Kind

__all__ = ["Kind", "kind_of", "model_of_work", "model_work_id", "new_id", "remote_batch_id", "remote_batch_of"]


def new_id(kind: Kind) -> str:
    """A fresh id such as `batch_019a3c…`; later ids sort after earlier ones."""
    return f"{KINDS[kind].id_prefix}{int(time.time() * 1000):012x}{secrets.token_hex(6)}"


_JOB_ID = re.compile(r"[a-z]+_[A-Za-z0-9_-]{1,56}")


def kind_of(job_id: str) -> Kind | None:
    """The kind that an id's prefix names, or None when it is not a job id."""
    if not _JOB_ID.fullmatch(job_id):
        return None
    return next((kind for kind, entry in KINDS.items() if job_id.startswith(entry.id_prefix)), None)


_MODEL_WORK = "model_"


def model_work_id(model_no: int) -> str:
    """The id that messages and events use for the remote action of a model version; it is not a job's id."""
    return f"{_MODEL_WORK}{model_no:012x}"


def model_of_work(work_id: str) -> int | None:
    """The number of the model version, or None for the id of a job."""
    return int(work_id.removeprefix(_MODEL_WORK), 16) if work_id.startswith(_MODEL_WORK) else None


_REMOTE_BATCH = "remote_"


def remote_batch_id(number: int) -> str:
    """The id that messages use for a remote batch; it is not a job's id."""
    return f"{_REMOTE_BATCH}{number:012x}"


def remote_batch_of(work_id: str) -> int | None:
    """The number of the remote batch, or None for another id."""
    return int(work_id.removeprefix(_REMOTE_BATCH), 16) if work_id.startswith(_REMOTE_BATCH) else None
