"""The one place that wires the worker: settings → engine, sender, Mistral. Everything else is handed what it needs."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from sqlalchemy.engine import Engine

from labelmill.core.database import (
    ALIVE_CONNECTIONS,
    DEAD_LETTER_CONNECTIONS,
    RECOVERY_CONNECTIONS,
    WORKER_CONNECTIONS,
    check_tables,
    connect_to_existing,
)
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill.core.storage.base import Storage
from labelmill.core.storage.opening import open_storage
from labelmill_worker.process.ability import Ability
from labelmill_worker.runtime.database_watch import DatabaseWatch

if TYPE_CHECKING:
    from labelmill_worker.inference.inference_runtime import InferenceRuntime
    from labelmill_worker.ports.batch_jobs import BatchJobs
from labelmill_worker.ports.control_plane import ControlPlane


@dataclass(frozen=True)
class ProcessResources:
    """What tasks work with. Made once in a process, on first use: starting a worker connects to nothing."""

    settings: Settings
    engine: Engine
    sender: MessageSender
    control_plane_override: ControlPlane | None = None
    batch_jobs_override: BatchJobs | None = None

    @cached_property
    def storage(self) -> Storage:
        """The files that producers and workers share. Raises InvalidInput."""
        return open_storage(self.settings)

    @property
    def control_plane(self) -> ControlPlane:
        """Files, fine-tuning jobs and models at Mistral. Raises CredentialsRefused without a key."""
        if self.control_plane_override is not None:
            return self.control_plane_override
        with _making:
            return self._control_plane

    @cached_property
    def _control_plane(self) -> ControlPlane:
        from labelmill_worker.mistral.control_plane import SdkControlPlane  # noqa: PLC0415 - the SDK takes a second to import

        return SdkControlPlane.from_settings(self.settings)

    @property
    def batch_jobs(self) -> BatchJobs:
        """Batch jobs and their files at Mistral. Raises CredentialsRefused without a key."""
        if self.batch_jobs_override is not None:
            return self.batch_jobs_override
        with _making:
            return self._batch_jobs

    @cached_property
    def _batch_jobs(self) -> BatchJobs:
        from labelmill_worker.mistral.batch_jobs import SdkBatchJobs  # noqa: PLC0415 - as above

        return SdkBatchJobs.from_settings(self.settings)

    @property
    def ability(self) -> Ability:
        """What this process cannot do."""
        with _making:
            return self._ability

    @cached_property
    def _ability(self) -> Ability:
        return Ability(self.engine)

    @property
    def inference(self) -> InferenceRuntime:
        """What sends texts, one for all chunks of this process. Raises WorkerUnable."""
        with _making:
            return self._inference

    @cached_property
    def _inference(self) -> InferenceRuntime:
        from labelmill_worker.inference.inference_runtime import InferenceRuntime  # noqa: PLC0415 - only where texts are classified
        from labelmill_worker.mistral.realtime import RealtimeInference  # noqa: PLC0415 - as above
        from labelmill_worker.store.refused_fields import StoredRefusedFields  # noqa: PLC0415 - as above

        return InferenceRuntime.from_settings(
            self.settings,
            self.engine,
            RealtimeInference.from_settings(self.settings, StoredRefusedFields(self.engine)),
            self.ability,
            self.storage,
        )

    def close(self) -> None:
        """Close what was opened: nothing may be in work."""
        if "_inference" in vars(self):
            self.inference.close()
        if "_control_plane" in vars(self):
            self.control_plane.close()
        if "_batch_jobs" in vars(self):
            self.batch_jobs.close()
        self.engine.dispose()


#: Tasks run in threads, and from Python 3.12 on a cached property has no lock of its own.
_making = threading.RLock()
_lock = threading.Lock()
_resources: ProcessResources | None = None
_watch: DatabaseWatch | None = None


def bootstrap(
    settings: Settings, sender: MessageSender, *, control_plane: ControlPlane | None = None
) -> ProcessResources:
    """Wire a set of resources. Raises DatabaseUnavailable or DatabaseOutdated."""
    others = DEAD_LETTER_CONNECTIONS + RECOVERY_CONNECTIONS + ALIVE_CONNECTIONS
    engine = connect_to_existing(settings, max_connections=WORKER_CONNECTIONS - others)
    try:
        check_tables(engine)
    except BaseException:
        engine.dispose()
        raise
    return ProcessResources(settings, engine, sender, control_plane)


def process_resources(settings: Settings, sender: MessageSender) -> ProcessResources:
    """The resources of this process, wired on the first call (after any fork). Raises DatabaseUnavailable,
    DatabaseOutdated, DatabaseUnsuitable."""
    global _resources, _watch  # noqa: PLW0603 - one per process is the point
    with _lock:
        if _resources is None or _watch is None:
            resources = bootstrap(settings, sender)
            try:
                _watch = DatabaseWatch(resources.engine)
            except BaseException:
                resources.engine.dispose()
                raise
            _resources = resources
        resources, watch = _resources, _watch
    watch.check()
    return resources


def forget_resources() -> None:
    """Drop what was wired (a forked child must not use its parent's connections)."""
    global _lock, _resources, _watch  # noqa: PLW0603 - see above
    _lock = threading.Lock()  # a thread of the parent may have held it, and that thread does not exist here
    if _watch is not None:
        _watch.end()
    _watch = None
    if _resources is not None:
        _resources.engine.dispose(close=False)
    _resources = None


def close_database() -> None:
    """Close this process's idle connections to the database. For a process that shuts down."""
    if _watch is not None:
        _watch.end()
    if _resources is not None:
        _resources.engine.dispose()


def abort_requests() -> None:
    """Abort the requests of this process that carry texts: they count as not answered."""
    # not under the lock: a thread that waits for such a request may hold it
    if _resources is not None and "_inference" in vars(_resources):
        _resources.inference.abort_requests()
