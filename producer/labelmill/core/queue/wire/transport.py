"""kombu's Redis transport, with every message checked before kombu reads it. Only this module depends on its internals.

What it relies on, and what breaks when a new kombu differs (`test_transport.py` notices):

- A connection takes the class that `broker_transport` names (`QueueApp.make`), and not the one that its URL's scheme
  means; it speaks TLS as `broker_use_ssl` says. Else nothing is checked.
- `Channel._get_client()` makes the client whose `parse_response` reads what BRPOP returns; None there means that
  nothing came. Else a malformed message on a queue ends the worker.
- `Channel._handle_message()` reads what comes by publish/subscribe; an empty `data` there is passed over. Else a
  malformed PUBLISH ends the worker.
- `Channel._fanout_to_queue` holds the exchanges that are listened to.
- `QoS.restore_by_tag()` puts back what was delivered and not acknowledged, which it reads from Redis. Else a malformed
  entry there keeps the rest from being put back.
- `Channel.get_table()` reads from Redis which queues are bound to an exchange. Else a malformed entry there ends
  remote control.
"""

from __future__ import annotations

from typing import Any

import redis
from kombu.transport import redis as kombu_redis

from labelmill.core.queue.wire.control import checked_command, checked_reply
from labelmill.core.queue.wire.events import checked_events
from labelmill.core.queue.wire.frame import MalformedMessage, drop
from labelmill.core.queue.wire.tasks import checked_task

_REMOTE_CONTROL = ".pidbox"
_EVENTS = "celeryev"
_SEPARATOR = "\x06\x16"  # between a queue's name and the priority, in the names of its lists

# celery-types has no complete types of either
_QoS: Any = kombu_redis.QoS
_Channel: Any = kombu_redis.Channel


class _CheckingClient(redis.Redis):
    """Passes on a queue's entry if it is a valid message."""

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        response = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
        if command_name != "BRPOP" or not response:
            return response
        name, entry = response
        queue = _text(name).split(_SEPARATOR, 1)[0]
        try:
            checked = checked_reply(entry, queue) if queue.endswith(_REMOTE_CONTROL) else checked_task(entry)
        except MalformedMessage as refusal:
            drop(refusal, queue)
            return None
        return name, checked


class _RestoringMessages(_QoS):  # type: ignore[misc]
    """Drops malformed entries among unacknowledged messages instead of failing on them."""

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:  # noqa: FBT001 - kombu's
        try:
            super().restore_by_tag(tag, client, leftmost)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            drop(MalformedMessage("it is not a delivered message", _text(tag)[:200]), self.unacked_key)
            with self.channel.conn_or_acquire(client) as connection:
                self._remove_from_indices(tag, connection.pipeline()).execute()


class CheckingChannel(_Channel):  # type: ignore[misc]
    """A channel on which malformed messages are dropped."""

    QoS = _RestoringMessages

    def _get_client(self) -> Any:
        super()._get_client()  # it checks redis-py's version
        return _CheckingClient

    def _handle_message(self, client: Any, r: Any) -> Any:
        payload = super()._handle_message(client, r)
        if payload["data"] and _text(payload["type"]).endswith("message"):
            payload["data"] = self._checked(_text(payload["channel"]), payload["data"])
        return payload

    def _checked(self, topic: str, data: Any) -> bytes:
        exchange = topic.partition(".")[2].split("/", 1)[0]  # of `/DATABASE.EXCHANGE/ROUTING_KEY`
        if exchange not in self._fanout_to_queue:
            return b""
        try:
            if exchange.endswith(_REMOTE_CONTROL):
                return checked_command(data)
            if exchange == _EVENTS:
                return checked_events(data)
            raise MalformedMessage("nothing is expected there", "")
        except MalformedMessage as refusal:
            drop(refusal, exchange)
            return b""

    def get_table(self, exchange: str) -> list[Any]:
        return [binding for binding in super().get_table(exchange) if len(binding) == 3]


class CheckingTransport(kombu_redis.Transport):
    """Redis, with every message checked."""

    Channel = CheckingChannel


CHECKING_TRANSPORT = f"{CheckingTransport.__module__}:{CheckingTransport.__qualname__}"  #: As `broker_transport`.


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
