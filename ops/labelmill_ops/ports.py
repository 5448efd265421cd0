"""Ports on loopback."""

from __future__ import annotations

import socket

from labelmill.contracts.errors import InvalidInput

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A port on loopback on which nothing listens. Another process can still take it first: the caller must check."""
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
