"""What this worker cannot do, and whether another one may.

A key that is missing or refused, a data folder that is not mounted, a file or an option of a newer version: that is a
fault of one worker, and happens in every rolling upgrade and every change of keys. Such a worker releases the work,
takes no more of that kind for `RETRY_S`, and then tries again. The job fails when no other live worker could do it; one
that was alive until recently has two minutes to come back.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import WorkerUnable
from labelmill_worker.store.workers import LIVE_S, note_able, note_unable, others_may

log = structlog.get_logger()

PATIENCE_S = 120.0  #: Work waits for another worker that was alive within this time: it may come back.
RETRY_S = 30.0
REQUEUE_PAUSE_S = 1.0  #: After requeueing a message a worker takes none for so long.
MISTRAL = "mistral"

WORKER_ID = secrets.token_hex(8)  #: Of this process and the children that a prefork pool makes of it.


@dataclass
class _Inability:
    error: WorkerUnable
    tries_again_at: float
    waits: bool  #: Work was left to others.


class Ability:
    """One for each process. Any thread may ask it; without an inability it makes no query."""

    def __init__(
        self, engine: Engine, worker_id: str = WORKER_ID, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._worker_id = worker_id
        self._clock = clock
        self._known: dict[str, _Inability] = {}

    def lacks(self, subject: str) -> WorkerUnable | None:
        """Why this worker does nothing of the kind now; None: it may try."""
        inability = self._known.get(subject)
        return inability.error if inability is not None and self._clock() < inability.tries_again_at else None

    def lacking(self) -> list[str]:
        """All subjects of which this worker does nothing now."""
        return [subject for subject in list(self._known) if self.lacks(subject) is not None] if self._known else []

    def leaves_to_others(self, error: WorkerUnable, job: str, queue: str) -> bool:
        """Record that this worker cannot do the work. Returns whether another worker may: then it is released; else
        the job fails.

        `job` names the work, unless the fault concerns everything that needs Mistral. `queue`: a worker that serves
        it may do the work.
        """
        subject = MISTRAL if error.is_about_mistral else job
        inability, now = self._known.get(subject), self._clock()
        if inability is None or now >= inability.tries_again_at:
            waits = inability is not None and inability.waits and now < inability.tries_again_at + PATIENCE_S
            inability = self._known[subject] = _Inability(error, now + RETRY_S, waits)
            note_unable(self._engine, self._worker_id, subject, error.message, RETRY_S)
            log.error("this worker cannot do it", what=subject, reason=error.message, tries_again_in_s=RETRY_S)
        within_s = PATIENCE_S if inability.waits else LIVE_S
        inability.waits = others_may(self._engine, self._worker_id, subject, queue, seen_within_s=within_s)
        return inability.waits

    def succeeded(self, subject: str) -> None:
        """The work was done: the worker can do this kind again."""
        if self._known.pop(subject, None) is not None:  # another thread may have seen it too
            note_able(self._engine, self._worker_id, subject)
            log.info("this worker can do it again", what=subject)
