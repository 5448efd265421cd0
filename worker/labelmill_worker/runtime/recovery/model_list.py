"""Mistral's list of models, read again once an hour by one worker of the fleet: names that point to models may move at
any time, and no producer asks Mistral."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import LabelmillError
from labelmill.core.database import connect_to_existing
from labelmill.core.settings import Settings
from labelmill_worker.ports.control_plane import RemoteModel
from labelmill_worker.store.locks import Taken, hold_lease, take_lease
from labelmill_worker.store.remote_models import keep_models

log = structlog.get_logger()

LEASE = "list of models"
_EVERY_S = 3600.0
_AGAIN_S = 300.0  #: Where Mistral did not tell it.
_ASK_EVERY_S = 60.0  #: How often a worker looks whether the list is due.


def read_from_mistral(settings: Settings) -> list[RemoteModel]:
    """The list as Mistral tells it. Raises LabelmillError."""
    from labelmill_worker.mistral.control_plane import SdkControlPlane  # noqa: PLC0415 - the SDK is slow

    plane = SdkControlPlane.from_settings(settings, read_attempts=1)
    try:
        return plane.list_models()
    finally:
        plane.close()


class ModelListReader:
    """Reads the list when it is due, in a thread of its own: an answer may take long, and no sweep waits for it."""

    def __init__(self, settings: Settings, read: Callable[[Settings], list[RemoteModel]] = read_from_mistral) -> None:
        self._settings, self._read = settings, read
        self._thread: threading.Thread | None = None
        self._ask_at = 0.0

    def read_if_due(self, engine: Engine) -> None:
        """Begin to read the list, unless a worker did so lately. Raises DatabaseUnavailable."""
        if time.monotonic() < self._ask_at or not self._settings.mistral_api_key:
            return
        if self._thread is not None and self._thread.is_alive():
            return
        self._ask_at = time.monotonic() + _ASK_EVERY_S
        lease = take_lease(engine, LEASE, _EVERY_S)
        if isinstance(lease, Taken):
            self._thread = threading.Thread(target=self._keep, args=(lease,), name="model-list", daemon=True)
            self._thread.start()

    def _keep(self, lease: Taken) -> None:
        try:
            models = self._read(self._settings)
            self._with_engine(lambda engine: keep_models(engine, models))
        except Exception as error:  # noqa: BLE001 - a thread of its own: nobody else would tell
            reason = error.message if isinstance(error, LabelmillError) else type(error).__name__
            log.info("Mistral's list of models could not be read", reason=reason)
            try:
                self._with_engine(lambda engine: hold_lease(engine, LEASE, lease.token, _AGAIN_S))
            except LabelmillError:
                return  # it is read again in an hour

    def _with_engine(self, work: Callable[[Engine], object]) -> None:
        """With connections of its own: those of the timer's thread are the timer's."""
        engine = connect_to_existing(self._settings, max_connections=1)
        try:
            work(engine)
        finally:
            engine.dispose()
