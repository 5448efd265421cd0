"""What waits on Redis, so that recovery knows which message is lost and sends none twice.

Redis is asked only when something is overdue: an idle system costs no query.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import orjson
import redis
from redis.exceptions import RedisError

from labelmill.contracts.errors import BrokerUnavailable
from labelmill.contracts.messages import PRIORITY_OF, QUEUES
from labelmill.core.addresses.broker import redis_arguments

T = TypeVar("T")

MAX_READ = 20_000  #: Messages. Windows keep a queue far below it; beyond it no job's message is taken for lost.


@dataclass
class WaitingMessages:
    """The messages on the queues, as they stand when first asked for. Raises BrokerUnavailable."""

    broker_url: str
    _lists: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        # kombu keeps each priority but the first in a list of its own
        steps = PRIORITY_OF.values()
        self._lists = {queue: [queue, *(f"{queue}\x06\x16{step}" for step in steps)] for queue in QUEUES}

    @cached_property
    def for_chunks(self) -> int:
        """How many messages bring workers to chunks: whichever it names, the worker takes what is runnable."""
        return self._ask(lambda client: sum(int(client.llen(name)) for name in self._lists["classify"]))

    @cached_property
    def jobs(self) -> set[str] | None:
        """The ids of jobs that messages name. None: there are too many to read."""

        def read(client: redis.Redis) -> set[str] | None:
            names = [name for names in self._lists.values() for name in names]
            if sum(int(client.llen(name)) for name in names) > MAX_READ:
                return None
            return {job_id for name in names for job_id in _named_by(client.lrange(name, 0, MAX_READ))}

        return self._ask(read)

    def _ask(self, question: Callable[[redis.Redis], T]) -> T:
        try:
            with redis.Redis.from_url(
                **redis_arguments(self.broker_url), socket_timeout=5, socket_connect_timeout=5
            ) as client:
                return question(client)
        except (RedisError, OSError) as error:
            raise BrokerUnavailable("Redis cannot be reached") from error


def _named_by(messages: Iterable[bytes | str]) -> Iterable[str]:
    for message in messages:
        try:
            yield orjson.loads(base64.b64decode(orjson.loads(message)["body"]))[1]["job_id"]
        except (ValueError, TypeError, KeyError, IndexError):
            continue  # a sweep, or malformed: the worker that receives it reports that
