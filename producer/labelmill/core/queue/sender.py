"""Celery's configuration for producer and worker, and the sending of messages.

The settings: late acknowledgement, JSON only, no results, and quick redelivery of messages that a killed worker held.
Redelivery is only an optimisation: recovery from SQL guarantees that work is done.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labelmill.contracts.errors import BrokerUnavailable
from labelmill.contracts.job_kinds import QUEUE_OF
from labelmill.contracts.messages import PRIORITY_OF, QUEUES, JobMessage
from labelmill.core.addresses.broker import celery_broker
from labelmill.core.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

#: Above the longest chunk task plus the longest countdown. A later redelivery does no harm: claims are in SQL.
VISIBILITY_TIMEOUT_S = 300


#: One retry: a person waits for the sender, and recovery sends what is recorded in SQL anyway. By default kombu retries
#: for 6 s, and waits for a frozen Redis without a limit.
_ONE_RETRY = {"max_retries": 1, "interval_start": 0.2, "socket_connect_timeout": 1, "socket_timeout": 3}


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Celery's configuration, the same for producer, worker, beat and Flower."""
    broker = celery_broker(settings.broker_url)
    return {
        **broker,
        "result_backend": None,
        "task_ignore_result": True,
        "accept_content": ["json"],
        "task_serializer": "json",
        "task_acks_late": True,  # a killed worker's message must come back
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        # after a lost connection Celery would fetch fewer messages until as many tasks have ended; long ones that fill
        # what is left would keep the free slot from getting any
        "worker_enable_prefetch_count_reduction": False,
        "worker_pool": "threads",  # one event loop a process serves every chunk; more processes, not more children
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "task_create_missing_queues": True,
        "task_default_queue": "classify",
        "task_routes": {name: {"queue": queue} for name, queue in QUEUE_OF.items()},
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,  # a Redis whose memory is full refuses commands: no reason to end
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "unacked_restore_interval": 2,
            "unacked_restore_throttle": 1,
            "queue_order_strategy": "round_robin",
            "priority_steps": sorted(PRIORITY_OF.values()),
            "health_check_interval": 25,
            "socket_keepalive": True,
            "socket_connect_timeout": 5,
            # kombu does not read this option, but it pools connections by their options, which do not include the TLS
            # settings: a caller that checks certificates must not get a connection that did not
            "checks": broker["broker_use_ssl"],
        },
        "worker_hijack_root_logger": False,
        "timezone": "UTC",
    }


def _sending_app(settings: Settings, *, checks_messages: bool = False) -> Celery:
    with _uncollected():  # slow to import; most commands send nothing
        import kombu.transport.redis  # noqa: F401, PLC0415 - Celery would at the first message

        from labelmill.core.queue.application import QueueApp  # noqa: PLC0415

        app = QueueApp.make(settings, set_as_current=False, checks_messages=checks_messages)
        app.conf.broker_transport_options |= _ONE_RETRY
        app.amqp  # noqa: B018 - imports too
    return app


@contextmanager
def _uncollected() -> Iterator[None]:
    """Disable the garbage collector during an import: imports allocate much and free nothing, so it would find nothing
    and take a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def asking_app(settings: Settings) -> Celery:
    """An application that asks workers for their health. The caller closes it."""
    app = _sending_app(settings, checks_messages=True)  # anyone who can write to Redis can send a reply
    app.conf.broker_connection_retry = False
    return app


class _NoResult:
    """The unused return value of sending a message. Celery's own class would search all installed packages for a
    result store."""

    ignored = True  # Celery sets it

    def __init__(self, task_id: str) -> None:
        pass


class MessageSender:
    """Sends messages; the sender does not need the code of the tasks."""

    def __init__(self, app: Celery | Settings) -> None:
        self._app_or_settings = app

    @classmethod
    def connect(cls, settings: Settings) -> MessageSender:
        """A sender with an application of its own, for processes that are not workers. Opens no connection yet."""
        return cls(settings)

    @cached_property
    def _app(self) -> Celery:
        return (
            _sending_app(self._app_or_settings)
            if isinstance(self._app_or_settings, Settings)
            else self._app_or_settings
        )

    def close(self) -> None:
        """Close the connections to Redis that this sender opened; those of an application passed in stay open."""
        if isinstance(self._app_or_settings, Settings) and "_app" in vars(self):
            self._app.close()

    def send(
        self, task: str, messages: Sequence[JobMessage], *, priority: str = "normal", countdown_s: float | None = None
    ) -> None:
        """Put `messages` on the task's queue. Raises BrokerUnavailable; recovery sends them later in that case."""
        from kombu.exceptions import KombuError  # noqa: PLC0415 - as in _sending_app
        from redis.exceptions import RedisError  # noqa: PLC0415 - as above

        try:
            with self._app.producer_or_acquire() as producer:
                for message in messages:
                    self._app.send_task(
                        task,
                        kwargs=message.model_dump(),
                        queue=QUEUE_OF[task],
                        priority=PRIORITY_OF[priority],
                        countdown=countdown_s,
                        ignore_result=True,
                        retry=False,
                        producer=producer,
                        result_cls=_NoResult,  # type: ignore[arg-type] # any class will do
                    )
        except (KombuError, RedisError, OSError) as error:
            from labelmill.core.queue.redis_faults import refusal_in  # noqa: PLC0415 - as above

            refusal = refusal_in(error)
            message_text = f"Redis takes no messages, {refusal.reason}" if refusal else "Redis cannot be reached"
            raise BrokerUnavailable(message_text) from error


__all__ = ["QUEUES", "MessageSender", "celery_settings"]
