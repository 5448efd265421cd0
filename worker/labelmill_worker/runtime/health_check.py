"""How a worker answers `labelmill doctor`: at once, from the thread that reads the queues.

Mistral is checked in a thread, one check at a time; a second question a little later gets its result. A result is kept
for some seconds, so that somebody with access to Redis cannot make workers call Mistral without end.
"""

from __future__ import annotations

import contextlib
import threading
import time
from importlib.metadata import version
from typing import Any

import structlog
from celery.worker.control import inspect_command

from labelmill.contracts.errors import LabelmillError
from labelmill.contracts.messages import INSPECT
from labelmill.core.database import connect_to_existing
from labelmill.core.redaction import secret_remover
from labelmill.core.settings import Settings, load_settings
from labelmill_worker.ports.control_plane import RemoteModel
from labelmill_worker.runtime.storage_check import BucketCheck, folder_trouble
from labelmill_worker.store.remote_models import keep_models

log = structlog.get_logger()
_KEPT_S = 10.0
_REQUEST_S = 4.0


class MistralCheck:
    """The latest check of Mistral, and of a storage that answers over the network, by this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._result: dict[str, Any] | None = None
        self._checked_at = 0.0
        self._is_running = False
        self.bucket = BucketCheck()

    def latest(self, settings: Settings) -> dict[str, Any]:
        """The recent result, or `{"looking": True}` while a check runs."""
        with self._lock:
            if self._is_running:
                return {"looking": True}
            if self._result is not None and time.monotonic() - self._checked_at < _KEPT_S:
                return self._result
            self._is_running = True
        threading.Thread(target=self._check, args=(settings,), name="mistral-check", daemon=True).start()
        return {"looking": True}

    def _check(self, settings: Settings) -> None:
        result: dict[str, Any] = {"status": "failed", "summary": "the check of Mistral failed; see the worker's log"}
        try:
            self.bucket.renew(settings)
            result = _ask(settings)
        except Exception:
            log.exception("the check of Mistral failed")
        finally:
            with self._lock:
                self._result, self._checked_at, self._is_running = result, time.monotonic(), False


def _ask(settings: Settings) -> dict[str, Any]:
    from labelmill_worker.mistral.account import check_account, failed_check  # noqa: PLC0415 - the SDK is slow
    from labelmill_worker.mistral.batch_jobs import SdkBatchJobs  # noqa: PLC0415 - as above
    from labelmill_worker.mistral.control_plane import SdkControlPlane  # noqa: PLC0415 - as above

    quick = settings.model_copy(update={"request_timeout_s": min(_REQUEST_S, settings.request_timeout_s)})
    try:
        plane = SdkControlPlane.from_settings(quick, read_attempts=1)
        jobs = SdkBatchJobs.from_settings(quick, read_attempts=1)
    except LabelmillError as error:
        return failed_check(error)
    try:
        return check_account(plane, jobs, lambda models: _keep(settings, models))
    finally:
        jobs.close()
        plane.close()


def _keep(settings: Settings, models: list[RemoteModel]) -> None:
    """Keep the list of models where the database takes it."""
    with contextlib.suppress(LabelmillError):
        engine = connect_to_existing(settings, max_connections=1)
        try:
            keep_models(engine, models)
        finally:
            engine.dispose()


_mistral = MistralCheck()


@inspect_command(name=INSPECT)
def answer_doctor(state: Any, **_: Any) -> dict[str, Any]:
    """What this worker knows of itself."""
    settings = load_settings()
    redact = secret_remover(settings)
    result = _mistral.latest(settings)
    consumer = getattr(state.consumer, "task_consumer", None)
    return {
        "version": version("labelmill"),
        "queues": sorted({queue.name for queue in consumer.queues}) if consumer else [],
        "clock": time.time(),
        "disk": folder_trouble(settings) or _mistral.bucket.trouble,
        "mistral": {name: redact(value) if isinstance(value, str) else value for name, value in result.items()},
    }
