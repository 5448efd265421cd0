"""What makes Redis a hint: work that SQL says is owed and that no message will bring is sent again.

Two sweeps at once do no harm (every claim is guarded); a lease keeps them from doing the work twice.
"""

from __future__ import annotations

import redis
import structlog
from redis.exceptions import RedisError

from labelmill.contracts.dispatch import dispatch_batch
from labelmill.contracts.errors import BrokerUnavailable
from labelmill.contracts.messages import EVALUATE, PREPARE, PRIORITY_OF, QUEUES, TRAIN, JobMessage
from labelmill.contracts.states import DatasetState, EvaluationState, TrainingState
from labelmill.contracts.tables import DatasetRow, EvaluationRow, TrainingRow
from labelmill_worker.bootstrap import Services
from labelmill_worker.store import owed

log = structlog.get_logger()

#: A message that waits on a busy queue is not lost; one that is this old on an idle queue is.
LOST_ON_IDLE_QUEUE_S = 10.0
LOST_ON_BUSY_QUEUE_S = 600.0


def sweep(services: Services) -> None:
    """One sweep. Raises DatabaseUnavailable."""
    if not owed.take_lease(services.engine, "sweep", services.settings.sweep_s):
        return
    busy = _busy_queues(services.settings.broker_url)
    if busy is None:
        return  # nothing can be sent now
    returned = owed.return_expired_chunks(services.engine)
    if returned:
        log.warning("chunks of dead workers are owed again", chunks=returned)
    try:
        for task, table, states in (
            (PREPARE, DatasetRow, (DatasetState.QUEUED, DatasetState.PREPARING)),
            (TRAIN, TrainingRow, (TrainingState.QUEUED, TrainingState.UPLOADING, TrainingState.VALIDATING,
                                  TrainingState.AWAITING_APPROVAL, TrainingState.RUNNING)),
            (EVALUATE, EvaluationRow, (EvaluationState.QUEUED, EvaluationState.RUNNING)),
        ):  # fmt: skip
            late_s = LOST_ON_IDLE_QUEUE_S if not busy & {"prepare", "train"} else 60.0
            ids = owed.owed_jobs(services.engine, table, states, late_s=late_s, again_in_s=late_s)
            services.sender.send(task, [JobMessage(job_id=job_id) for job_id in ids])
            if ids:
                log.info("jobs sent again", task=task, jobs=ids)
        lost_after_s = LOST_ON_BUSY_QUEUE_S if "classify" in busy else LOST_ON_IDLE_QUEUE_S
        for batch_id in owed.open_batches(services.engine):
            dispatch_batch(services.engine, services.sender, batch_id, lost_after_s=lost_after_s)
    except BrokerUnavailable:
        log.warning("sweep cut short: Redis cannot be reached")
    owed.complete_finished_batches(services.engine)


def _busy_queues(broker_url: str) -> set[str] | None:
    """Queues in which messages wait. None: Redis cannot be reached."""
    try:
        with redis.Redis.from_url(broker_url, socket_timeout=5, socket_connect_timeout=5) as client:
            busy = set()
            for queue in QUEUES:
                # kombu keeps each priority but the first in a list of its own
                names = [queue, *(f"{queue}\x06\x16{step}" for step in PRIORITY_OF.values())]
                if any(client.llen(name) for name in names):
                    busy.add(queue)
            return busy
    except (RedisError, OSError):
        return None
