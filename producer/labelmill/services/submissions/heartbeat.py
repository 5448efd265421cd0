"""The heartbeat of a submission: without it, a batch with a slow source looks like one whose submission was killed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from sqlalchemy import update
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import LabelmillError
from labelmill.contracts.states import BatchState
from labelmill.core.database import db_now, writing
from labelmill.core.database.tables import BatchRow

HEARTBEAT_S = 30.0
INTERRUPTED_S = 180.0  #: A submission without a heartbeat for so long does not go on.


@contextlib.contextmanager
def heartbeat(engine: Engine, batch_no: int, *, at_once: bool = False) -> Iterator[None]:
    """Show within that the submission of the batch is alive. `at_once`: the last heartbeat may be an old one."""
    has_ended = threading.Event()

    def beat() -> None:
        pause_s = 0.0 if at_once else HEARTBEAT_S
        while not has_ended.wait(pause_s):
            pause_s = HEARTBEAT_S
            submitting = (BatchRow.no == batch_no) & (BatchRow.state == BatchState.SUBMITTING.value)
            # the submission itself meets what is wrong with the database, and reports it
            with contextlib.suppress(LabelmillError), writing(engine) as connection:
                connection.execute(update(BatchRow).where(submitting).values(submitter_seen_at=db_now()))

    thread = threading.Thread(target=beat, name="submission-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()
