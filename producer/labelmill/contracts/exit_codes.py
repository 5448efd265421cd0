"""Every exit code of the command line, and which one the end of a job stands for.

An error's own code is in `errors.py`, by these names. README lists them for users.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DONE = 0
FAILED = 1
USAGE = 2  #: Arguments, settings or input that are wrong.
FAILED_ROWS = 3  #: Finished, and some rows have an error.
STOPPED_BY_BUDGET = 4  #: Or waiting for approval.
CREDENTIALS_REFUSED = 5
CANCELLED = 6
DATABASE_UNUSABLE = 7  #: Out of reach, read-only, or with tables of another version.
DETACHED = 130  #: Ctrl-C while waiting; the job goes on.

#: Of a job that failed.
_OF_ERROR = {
    "credentials_refused": CREDENTIALS_REFUSED,
    "cap_reached": STOPPED_BY_BUDGET,
    "monthly_limit": STOPPED_BY_BUDGET,
}
_OF_STATE = {"awaiting_approval": STOPPED_BY_BUDGET, "paused": STOPPED_BY_BUDGET, "cancelled": CANCELLED}


def exit_code_of_job(document: Mapping[str, Any]) -> int:
    """What a command that waited for a job exits with, by the job's status document."""
    state = document["state"]
    if state == "failed":
        return _OF_ERROR.get(str(document.get("error_code")), FAILED)
    # a batch has `rows`; an evaluation a `summary`, once it has one
    if state == "completed" and any((document.get(counts) or {}).get("failed") for counts in ("rows", "summary")):
        return FAILED_ROWS
    return _OF_STATE.get(state, DONE)
