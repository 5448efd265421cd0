"""Job ids: a prefix that says the kind, and 128 random bits that sort by the time of making."""

from __future__ import annotations

import re
import secrets
import time

from labelmill.contracts.job_kinds import KINDS, Kind

__all__ = ["Kind", "kind_of", "model_of_work", "model_work_id", "new_id"]


def new_id(kind: Kind) -> str:
    """A fresh id such as `batch_019a3c…`; later ids sort after earlier ones."""
    return f"{KINDS[kind].id_prefix}{int(time.time() * 1000):012x}{secrets.token_hex(6)}"


_JOB_ID = re.compile(r"[a-z]+_[A-Za-z0-9_-]{1,56}")


def kind_of(job_id: str) -> Kind | None:
    """The kind an id's prefix names, or None when it is no job id."""
    if not _JOB_ID.fullmatch(job_id):
        return None
    return next((kind for kind, one in KINDS.items() if job_id.startswith(one.id_prefix)), None)


_MODEL_WORK = "model_"


def model_work_id(model_no: int) -> str:
    """How messages and events name what is owed to Mistral for a model version; no job."""
    return f"{_MODEL_WORK}{model_no:012x}"


def model_of_work(work_id: str) -> int | None:
    """The model version's key, or None for the id of a job."""
    return int(work_id.removeprefix(_MODEL_WORK), 16) if work_id.startswith(_MODEL_WORK) else None
