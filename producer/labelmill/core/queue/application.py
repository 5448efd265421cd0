"""The Celery application of producers and workers alike."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Connection

from labelmill.core.queue.sender import celery_settings
from labelmill.core.settings import Settings


class QueueApp(Celery):
    """Celery on the Redis of the settings, whatever else Celery would listen to.

    Celery prefers CELERY_BROKER_URL and CELERY_RESULT_BACKEND to what an application sets, and its command reads
    BROKER_URL and RESULT_BACKEND too. Workers would then serve another Redis than the one that producers, the rate
    limit and `doctor` use.
    """

    backend_cls = "disabled://"  # before CELERY_RESULT_BACKEND; no result is kept
    _url = ""

    @classmethod
    def make(cls, settings: Settings, *, set_as_current: bool = True) -> QueueApp:
        """An application with Labelmill's configuration. Connects to nothing."""
        app = cls("labelmill", loader="app", set_as_current=set_as_current)
        app.conf.update(celery_settings(settings))
        app._url = str(app.conf["broker_url"])
        return app

    def connection_for_read(self, url: str | None = None, **options: Any) -> Connection:
        """A connection to consume from."""
        return super().connection_for_read(url or self._url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Connection:
        """A connection to publish to."""
        return super().connection_for_write(url or self._url, **options)

    def connection(self, hostname: str | None = None, *rest: Any, **options: Any) -> Connection:
        """A connection of either kind; Flower asks for it so."""
        return super().connection(hostname or self._url, *rest, **options)
