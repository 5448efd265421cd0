"""The Celery application of producers and workers alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from celery import Celery
from celery.app.amqp import AMQP
from kombu import Connection

from labelmill.core.queue.sender import celery_settings
from labelmill.core.settings import Settings


class QueueConnection(Connection):
    """A connection whose URL begins with `redis://` or `rediss://`, whatever its transport class.

    kombu would write the name of that class before `://`, and Flower finds Redis by the URL.
    """

    def as_uri(
        self,
        include_password: bool = False,  # noqa: FBT001 - kombu's
        mask: str = "**",
        getfields: Callable[..., Any] | None = None,
    ) -> str:
        """The URL, with the password masked unless `include_password`."""
        del getfields
        _, _, location = super().as_uri(include_password, mask).partition("://")
        return f"{'rediss' if self.ssl else 'redis'}://{location}"


class _QueueMessages(AMQP):
    Connection: Any = QueueConnection


class QueueApp(Celery):
    """Celery on the Redis of the settings, ignoring Celery's own environment variables.

    Celery prefers CELERY_BROKER_URL and CELERY_RESULT_BACKEND to what an application sets, and its command reads
    BROKER_URL and RESULT_BACKEND too. Workers would then serve another Redis than the one that producers, the rate
    limit and `doctor` use.
    """

    amqp_cls = f"{__name__}:_QueueMessages"
    backend_cls = "disabled://"  # before CELERY_RESULT_BACKEND; no result is kept
    _url = ""

    @classmethod
    def make(cls, settings: Settings, *, set_as_current: bool = True, checks_messages: bool = False) -> Self:
        """An application with Labelmill's configuration. Connects to nothing. `checks_messages`: for applications that
        receive messages, see `wire`."""
        made = cls("labelmill", loader="app", set_as_current=set_as_current)
        made.conf.update(celery_settings(settings))
        made._url = str(made.conf["broker_url"])
        if checks_messages:
            from labelmill.core.queue.wire.transport import CHECKING_TRANSPORT  # noqa: PLC0415 - senders need none

            made.conf.broker_transport = CHECKING_TRANSPORT
        return made

    def connection_for_read(self, url: str | None = None, **options: Any) -> Connection:
        """A connection to consume from."""
        return super().connection_for_read(url or self._url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Connection:
        """A connection to publish to."""
        return super().connection_for_write(url or self._url, **options)

    def connection(self, hostname: str | None = None, *rest: Any, **options: Any) -> Connection:
        """A connection of either kind; Flower calls this one."""
        return super().connection(hostname or self._url, *rest, **options)
