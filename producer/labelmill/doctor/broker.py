"""Checks of Redis: reachable, writable, persistent, its waiting messages, its clock."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.exceptions import NoPermissionError, RedisError

from labelmill.contracts.messages import PRIORITY_OF, QUEUES
from labelmill.core.addresses.broker import redis_arguments
from labelmill.core.queue.redis_faults import refusal_in
from labelmill.doctor.checks import Check, failed, ok, warning
from labelmill.doctor.limits import check_limits

SOCKET_TIMEOUT_S = 3.0
_OLDEST = (6, 2)
_NEARLY_FULL = 0.9
_WRITTEN = "labelmill:doctor"
_REACH = "start Redis, or correct LABELMILL_BROKER_URL"


@dataclass
class BrokerResult:
    """`is_up`: other checks that need Redis can run."""

    checks: list[Check]
    is_up: bool = False
    waiting: dict[str, int] = field(default_factory=dict)  #: Messages, by queue.
    ahead_s: float | None = None  #: Its clock over ours.


def check_broker(url: str) -> BrokerResult:
    """Ask Redis. Never raises."""
    try:
        with redis.Redis.from_url(
            **redis_arguments(url), socket_timeout=SOCKET_TIMEOUT_S, socket_connect_timeout=SOCKET_TIMEOUT_S
        ) as client:
            return _ask(client)
    except (RedisError, OSError) as error:
        if refusal := refusal_in(error):
            return BrokerResult([failed("broker", f"Redis takes no messages: {refusal.reason}", refusal.remedy)])
        return BrokerResult([_tls_fault(error) or _unreachable(error)])
    except Exception as error:  # noqa: BLE001 - the client raises anything for answers that are not Redis'
        summary = f"the server that answers is not Redis ({type(error).__name__})"
        return BrokerResult([failed("broker", summary, "correct LABELMILL_BROKER_URL")])


def _unreachable(error: Exception) -> Check:
    return failed("broker", f"Redis cannot be reached ({type(error).__name__})", _REACH)


def _tls_fault(error: BaseException | None) -> Check | None:
    """The fault of the certificate or of TLS, if it is the cause."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    if isinstance(error, ssl.SSLCertVerificationError):
        summary = f"Redis' certificate is not accepted: {error.verify_message}"
        remedy = "name the host that the certificate is for, or its issuer: ?ssl_ca_certs=FILE in LABELMILL_BROKER_URL"
        return failed("broker", summary, remedy)
    if error is not None:
        summary = f"Redis cannot be reached by TLS ({getattr(error, 'reason', None) or type(error).__name__})"
        return failed("broker", summary, "write redis:// in LABELMILL_BROKER_URL if that Redis speaks plain text")
    return None


def _ask(client: redis.Redis) -> BrokerResult:
    before = time.time()
    seconds, microseconds = client.time()
    after = time.time()
    client.set(_WRITTEN, "", px=1000)  # a replica answers, and so does a Redis that is full
    waiting = {
        queue: sum(
            int(client.llen(name))
            for name in (queue, *(f"{queue}\x06\x16{step}" for step in PRIORITY_OF.values() if step))
        )
        for queue in QUEUES
    }
    checks = [*_state(client), *check_limits(client)]
    return BrokerResult(
        checks, is_up=True, waiting=waiting, ahead_s=seconds + microseconds / 1e6 - (before + after) / 2
    )


def _state(client: redis.Redis) -> list[Check]:
    try:
        info: dict[str, Any] = client.info()
    except NoPermissionError:
        remedy = "allow it to the user: ACL SETUSER NAME +info"
        return [warning("broker", "Redis answers, and its user may not ask for its state (INFO)", remedy)]
    return [_version(info), _memory(info), _persistence(info)]


def _version(info: dict[str, Any]) -> Check:
    product = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version", "?"))
    numbers = tuple(int(part) for part in str(info.get("redis_version", "0")).split(".")[:2] if part.isdigit())
    if numbers < _OLDEST:
        return warning(
            "broker", f"{product} {version} answers, older than what is tested", "upgrade to Redis 6.2 or newer"
        )
    return ok("broker", f"{product} {version} answers")


def _memory(info: dict[str, Any]) -> Check:
    name, most, used = "broker memory", int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    policy, evicted = str(info.get("maxmemory_policy", "noeviction")), int(info.get("evicted_keys", 0))
    remedy = "set maxmemory-policy noeviction in Redis"
    if evicted:
        return warning(name, f"Redis has evicted {evicted} keys ({policy}): messages come late", remedy)
    if policy != "noeviction":
        return warning(name, f"the eviction policy {policy} may delete messages", remedy)
    if most and used > most * _NEARLY_FULL:
        return warning(name, f"{used / most:.0%} of {most >> 20} MB are used", "raise maxmemory in Redis")
    limit = f"of {most >> 20} MB" if most else "and no limit"
    return ok(name, f"{used >> 20} MB used {limit}, noeviction")


def _persistence(info: dict[str, Any]) -> Check:
    if info.get("aof_enabled"):
        return ok("broker persistence", "the append-only file is on: a restart keeps the queue")
    return warning(
        "broker persistence",
        "the append-only file is off: a restart empties the queue, and work comes late",
        "set appendonly yes in Redis",
    )
