"""What is no message of ours on a queue: taken off, kept as a dead letter, and nobody's end.

kombu reads a list's entry as JSON of a certain form and lets whatever that raises end the worker; each worker that is
started in its place takes the next piece. What the entry may hold is in `envelope.py`.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from kombu.transport import redis as transport

from labelmill.contracts.settings import load_settings
from labelmill_worker.dead_letters import process_dead_letters
from labelmill_worker.envelope import NoMessageError, open_envelope

_SHOWN_BYTES = 5_000  #: Of what is no UTF-8.


class _Loads:
    """In place of the transport's `loads`: the entry of a queue that is read must be a message.

    What is read beside it is not one: who ends hands an entry back, and kombu reads what it kept of it.
    """

    def __init__(self, loads: Any) -> None:
        self._loads = loads
        self.is_reading_queue = False

    def __call__(self, entry: Any) -> Any:
        if not self.is_reading_queue:
            return self._loads(entry)
        self.is_reading_queue = False
        return open_envelope(entry, self._loads)


_loads = _Loads(vars(transport)["loads"])


class RubbishProofChannel(transport.Channel):
    """A channel whose consumer outlives rubbish."""

    def _brpop_read(self, **options: Any) -> Any:
        _loads.is_reading_queue = True
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except NoMessageError as rubbish:
            self._drop(rubbish)
            return True
        except UnicodeDecodeError as error:
            self._drop(NoMessageError("it is no UTF-8 text", repr(error.object[:_SHOWN_BYTES])))
            return True
        finally:
            _loads.is_reading_queue = False

    def _drop(self, rubbish: NoMessageError) -> None:
        # kombu has just put the queue that the entry came from at the end of its cycle
        queues = vars(self)["_queue_cycle"].items
        process_dead_letters(load_settings()).drop(
            rubbish.reason, rubbish.excerpt, queue_name=queues[-1] if queues else None,
            task=rubbish.task, message_id=rubbish.message_id,
        )  # fmt: skip


class OutliveRubbish(bootsteps.StartStopStep):
    """A step of the worker's consumer: its channels are of the class above."""

    requires = ()

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        vars(transport)["loads"] = _loads
        transport.Transport.Channel = RubbishProofChannel
