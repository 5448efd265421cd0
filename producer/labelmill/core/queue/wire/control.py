"""Remote control: commands sent to workers by publish/subscribe, and their replies.

Celery trusts both. A command whose headers are a string crashes a worker, a `pattern` runs a regular expression chosen
by the sender, and a clock of four thousand digits is passed on between workers for ever. Only the commands that
Labelmill, Flower and `celery inspect` use are accepted.
"""

from __future__ import annotations

from typing import Any

from labelmill.contracts.messages import INSPECT
from labelmill.core.queue.wire.frame import is_id, is_line, is_number, is_plain, read_frame, write_frame

_QUERIES = (
    INSPECT,
    "ping",
    "stats",
    "active",
    "reserved",
    "scheduled",
    "revoked",
    "registered",
    "active_queues",
    "conf",
    "report",
    "query_task",
    "clock",
)
#: Older names of queries, which `celery inspect` and Flower still use.
_ALIASES = ("dump_active", "dump_reserved", "dump_schedule", "dump_revoked", "dump_tasks", "dump_conf")
_ACTIONS = (
    "heartbeat",
    "enable_events",
    "disable_events",
    "shutdown",
    "revoke",
    "terminate",
    "rate_limit",
    "time_limit",
    "add_consumer",
    "cancel_consumer",
    "pool_grow",
    "pool_shrink",
    "pool_restart",
    "autoscale",
)
COMMANDS = frozenset((*_QUERIES, *_ALIASES, *_ACTIONS))

_MAX_NAMES = 1_000
_MAX_NAME = 300
_MAX_COUNT = 100_000


def checked_command(entry: bytes | str) -> bytes:
    """The command of a published message, rebuilt. Raises MalformedMessage."""
    frame = read_frame(entry)
    content = frame.content
    if not isinstance(content, dict) or not is_line(content.get("method"), _MAX_NAME):
        raise frame.refusal("it is not a remote-control command")
    method, arguments = content["method"], content.get("arguments") or {}
    if method not in COMMANDS:
        raise frame.refusal(f"{method} is not a remote-control command that is taken")
    if content.get("pattern") is not None or content.get("matcher") is not None:
        raise frame.refusal("it names workers by a pattern")
    destination = content.get("destination")
    if destination is not None and not _are_names(destination):
        raise frame.refusal("its destination is not a list of workers")
    if not isinstance(arguments, dict) or not all(
        is_line(name, _MAX_NAME) and (_is_simple(value) or (isinstance(value, list) and _are_simple(value)))
        for name, value in arguments.items()
    ):
        raise frame.refusal("its arguments cannot be read")
    command: dict[str, Any] = {"method": method, "arguments": arguments, "destination": destination}
    if (reply_to := content.get("reply_to")) is not None:
        if not _is_address(reply_to) or not is_id(content.get("ticket")):
            raise frame.refusal("where its reply should go cannot be read")
        command |= {
            "ticket": content["ticket"],
            "reply_to": {name: reply_to[name] for name in ("exchange", "routing_key")},
        }
    return write_frame({"clock": 0}, command, routing_key="")


def checked_reply(entry: bytes | str, queue: str) -> bytes:
    """A worker's reply, rebuilt. Raises MalformedMessage. kombu puts a reply that nobody waits for any more back on its
    `queue`."""
    frame = read_frame(entry)
    content, ticket = frame.content, frame.headers.get("ticket")
    if not isinstance(content, dict) or not all(is_line(name, _MAX_NAME) for name in content) or not is_plain(content):
        raise frame.refusal("it is not a worker's reply")
    if not is_id(ticket):
        raise frame.refusal("it does not say what it replies to")
    return write_frame({"ticket": ticket, "clock": 0}, content, routing_key=queue)


def _is_address(value: object) -> bool:
    """Whether a reply may be sent to this address: one that `celery control` waits on, and no other list."""
    return (
        isinstance(value, dict)
        and is_id(value.get("routing_key"))
        and is_id(value.get("exchange"))
        and value["exchange"].startswith("reply.")
        and value["exchange"].endswith(".pidbox")
    )


def _are_names(value: object) -> bool:
    return isinstance(value, list) and len(value) <= _MAX_NAMES and all(is_line(name, _MAX_NAME) for name in value)


def _is_simple(value: object) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int | float):
        return is_number(value) and abs(value) <= _MAX_COUNT
    return is_line(value, _MAX_NAME)


def _are_simple(values: list[Any]) -> bool:
    return len(values) <= _MAX_NAMES and all(map(_is_simple, values))
