"""What is no message at all on a queue: taken off, logged, and nobody's end.

kombu reads a list's entry as JSON of a certain form and lets whatever that raises end the worker; each worker that is
started in its place takes the next piece. Celery's own checks (unknown task, unreadable body) come after that.
"""

from __future__ import annotations

from typing import Any

import structlog
from celery import bootsteps
from kombu.transport import redis as transport

log = structlog.get_logger()
_SHOWN = 200  #: Bytes of a piece of rubbish that the log shows.


class NoMessageError(ValueError):
    """An entry of a queue's list that kombu could not deliver."""

    def __init__(self, entry: Any) -> None:
        super().__init__("no message")
        self.entry = entry


class _Loads:
    """In place of the transport's `loads`: while an entry of a queue is read, it must be a message."""

    def __init__(self, loads: Any) -> None:
        self._loads = loads
        self.is_reading_queue = False

    def __call__(self, entry: Any) -> Any:
        if not self.is_reading_queue:
            return self._loads(entry)
        try:
            message = self._loads(entry)
            if not isinstance(message["body"], str) or not isinstance(message["headers"], dict):
                raise NoMessageError(entry)
            properties = message["properties"]
            if not isinstance(properties["delivery_tag"], str) or not isinstance(properties["delivery_info"], dict):
                raise NoMessageError(entry)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise NoMessageError(entry) from error
        return message


_loads = _Loads(vars(transport)["loads"])


class RubbishProofChannel(transport.Channel):
    """A channel whose consumer outlives rubbish."""

    def _brpop_read(self, **options: Any) -> Any:
        _loads.is_reading_queue = True
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except (NoMessageError, UnicodeDecodeError) as rubbish:
            entry = rubbish.entry if isinstance(rubbish, NoMessageError) else rubbish.object
            log.error("no message; dropped", entry=repr(entry)[:_SHOWN])
            return True
        finally:
            _loads.is_reading_queue = False


class OutliveRubbish(bootsteps.StartStopStep):
    """A step of the worker's consumer: its channels are of the class above."""

    requires = ()

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        vars(transport)["loads"] = _loads
        transport.Transport.Channel = RubbishProofChannel
