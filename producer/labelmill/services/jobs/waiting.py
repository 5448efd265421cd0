"""Waiting for jobs, in steps: the caller sleeps between them, in its own way. However many jobs there are, a step asks
for the states of all of them in one statement, and steps become rarer."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence

from labelmill.contracts.documents.jobs import JobDocument, JobEntry
from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.contracts.job_kinds import RESTING
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.documents import jobs_status
from labelmill.services.jobs.listing import entries_of, states_of
from labelmill.services.jobs.lost_reads import LostReads

#: A pause takes at most 20 ms and a tenth of the time waited so far: no more does a wait add to the time of a job.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LONGER = 0.02, 1.0, 1.1
_DOCUMENTS_AT_ONCE = 100  #: In one transaction.
_NAMED = 5  #: Jobs in the message of a time-out.

OnProgress = Callable[[JobEntry], None]
Waiting = Generator[float, None, list[JobDocument]]


def waiting_for_jobs(
    context: ServiceContext,
    job_ids: Sequence[str],
    *,
    timeout_s: float | None = None,
    on_progress: OnProgress | None = None,
    say: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Waiting:
    """Yields the seconds to pause before the next step. Returns the last status document of each job, in their order,
    once all have ended or wait for a person.

    `on_progress` is told of each job at first and whenever it has changed. While the database is unavailable, steps
    go on for a quarter of an hour, of which `say` is told. Raises NotFound, TimeoutError, DatabaseUnavailable.
    """
    ends_at = None if timeout_s is None else clock() + timeout_s
    documents: dict[str, JobDocument] = {}
    left = list(dict.fromkeys(job_ids))
    shown: dict[str, JobEntry] = {}
    pauses: list[float] = []
    lost = LostReads(left[0], say, clock=clock, sleep=pauses.append) if left else None
    pause_s = _FIRST_PAUSE_S
    while left and lost is not None:
        try:
            states = states_of(context, left)
            if on_progress is not None:
                for entry in entries_of(context, left):
                    if shown.get(entry["id"]) != entry:
                        shown[entry["id"]] = entry
                        on_progress(entry)
            ended = [job_id for job_id in left if states[job_id] in RESTING]
            for start in range(0, len(ended), _DOCUMENTS_AT_ONCE):
                some = ended[start : start + _DOCUMENTS_AT_ONCE]
                documents.update(zip(some, jobs_status(context, some), strict=True))
        except DatabaseUnavailable as error:
            if ends_at is not None and clock() >= ends_at:
                raise
            lost.wait_after(error)
            yield pauses.pop()
            continue
        lost.succeeded()
        left = [job_id for job_id in left if job_id not in documents]
        if not left:
            break
        if ends_at is not None and clock() >= ends_at:
            raise TimeoutError(_still_open({job_id: states[job_id] for job_id in left}, timeout_s or 0))
        yield pause_s if ends_at is None else max(0.0, min(pause_s, ends_at - clock()))
        pause_s = min(_LONGEST_PAUSE_S, pause_s * _LONGER)
    return [documents[job_id] for job_id in job_ids]


def _still_open(states: dict[str, str], timeout_s: float) -> str:
    named = ", ".join(f"{job_id} is still {state}" for job_id, state in list(states.items())[:_NAMED])
    return f"{named}{', …' if len(states) > _NAMED else ''} after {timeout_s:g} s"
