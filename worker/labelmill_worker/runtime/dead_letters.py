"""What becomes of a message that is dropped: a line in the log at once, a row in `dead_letters` as soon as may be.

Rows are written by a thread of its own: neither the worker's consumer nor a task waits for the database, and a database
that is away makes no dropping fail. What it could not take within a minute is in the log alone.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from labelmill.contracts.errors import LabelmillError
from labelmill.core.database import DEAD_LETTER_CONNECTIONS, connect_to_existing
from labelmill.core.database.tables import utc_now
from labelmill.core.queue.wire.frame import MalformedMessage
from labelmill.core.redaction import secret_remover
from labelmill.core.settings import Settings, load_settings
from labelmill_worker.store.dead_letters import keep_dead_letters

log = structlog.get_logger()

MAX_EXCERPT = 500  #: Characters.
_MAX_NAME = 100
_AT_ONCE = 200
_WAITING = 1000  #: Letters that wait for the database, at most: as many as are kept.
_TRY_FOR_S, _PAUSE_S = 60.0, 2.0


class DeadLetters:
    """Takes dropped messages from any thread; starts its own with the first one."""

    def __init__(self, settings: Settings, *, open_engine: Callable[[], Engine] | None = None) -> None:
        self._redact = secret_remover(settings)
        self._open_engine = open_engine or partial(
            connect_to_existing, settings, max_connections=DEAD_LETTER_CONNECTIONS
        )
        self._letters: queue.Queue[dict[str, Any]] = queue.Queue(_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def drop(
        self, reason: str, excerpt: str, *, queue_name: str | None, task: str | None, message_id: str | None
    ) -> None:
        """Log it and keep it. Never raises, never waits."""
        letter = {
            "at": utc_now(),
            "queue": self._text(queue_name, _MAX_NAME),
            "task": self._text(task, _MAX_NAME),
            "message_id": self._text(message_id, _MAX_NAME),
            "reason": self._text(reason, MAX_EXCERPT),
            "excerpt": self._text(excerpt, MAX_EXCERPT),
        }
        log.error("message dropped", **{name: value for name, value in letter.items() if name != "at" and value})
        try:
            self._letters.put_nowait(letter)
        except queue.Full:
            return  # too many, or no database: the log has it
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._write, name="dead-letters", daemon=True)
                self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was dropped is written, at most `timeout_s`. Returns whether it is."""
        deadline = time.monotonic() + timeout_s
        with self._letters.all_tasks_done:
            while self._letters.unfinished_tasks:
                if (left := deadline - time.monotonic()) <= 0:
                    return False
                self._letters.all_tasks_done.wait(left)
        return True

    def _text(self, text: str | None, max_chars: int) -> str | None:
        if text is None:
            return None
        # PostgreSQL keeps no NUL, UTF-8 no lone surrogate
        return self._redact.excerpt(text, max_chars).replace("\x00", "").encode("utf-8", "replace").decode()

    def _write(self) -> None:
        engine: Engine | None = None
        while True:
            letters = [self._letters.get()]
            while len(letters) < _AT_ONCE and not self._letters.empty():
                letters.append(self._letters.get())
            give_up_at = time.monotonic() + _TRY_FOR_S
            while True:
                try:
                    engine = engine or self._open_engine()
                    keep_dead_letters(engine, letters)
                except (LabelmillError, SQLAlchemyError) as error:
                    if time.monotonic() < give_up_at:
                        time.sleep(_PAUSE_S)
                        continue
                    log.warning("dropped messages are in the log alone", letters=len(letters), reason=str(error)[:200])
                break
            for _ in letters:
                self._letters.task_done()


_process_lock = threading.Lock()
_process: DeadLetters | None = None


def process_dead_letters(settings: Settings) -> DeadLetters:
    """The dead letters of this process."""
    global _process  # noqa: PLW0603 - one thread and one connection a process
    with _process_lock:
        _process = _process or DeadLetters(settings)
        return _process


def forget_dead_letters() -> None:
    """A forked child has neither its parent's thread nor its connection."""
    global _process  # noqa: PLW0603 - see above
    _process = None


def flush_dead_letters() -> None:
    """Before this process ends: write what was dropped, if the database takes it within `_PAUSE_S`."""
    if _process is not None:
        _process.flush(_PAUSE_S)


def keep_malformed(refusal: MalformedMessage, queue_name: str) -> None:
    """A message that the transport dropped, before Celery saw any of it."""
    process_dead_letters(load_settings()).drop(
        refusal.reason, refusal.excerpt, queue_name=queue_name, task=refusal.task, message_id=refusal.message_id
    )
