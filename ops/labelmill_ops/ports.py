"""Ports on loopback."""

from __future__ import annotations

import secrets
import socket

from labelmill.contracts.errors import InvalidInput

LOOPBACK = "127.0.0.1"


#: Systems give outgoing connections their ports from 32768 or 49152 on. A port of theirs could be taken between the
#: moment when it is found free and the one when a server listens on it, or while a server is restarted.
_LOWEST, _HIGHEST = 20_000, 32_767
_TRIES = 100


def free_port() -> int:
    """A port on loopback on which nothing listens. Another process can still take it first: the caller must check."""
    for _ in range(_TRIES):
        # not by `random`: processes that seeded it alike would choose the same ports
        if is_free(port := _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST + 1)):
            return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        # without it a port whose last connections are in TIME_WAIT would count as taken; servers set it as well
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def choose_port(asked: int | None, flag: str, *, usual: int | None = None) -> int:
    """The port asked for, else the usual one if it is free, else any. Raises InvalidInput when the first is taken."""
    if asked:
        if not is_free(asked):
            raise InvalidInput(f"port {asked} is taken: choose another with {flag}")
        return asked
    return usual if usual and is_free(usual) else free_port()


def answers(port: int, timeout_s: float = 0.5) -> bool:
    """Whether something accepts connections on `port`."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=timeout_s):
            return True
    except OSError:
        return False
