"""Ports for servers of this machine."""

from __future__ import annotations

import socket

import pytest

from labelmill_ops import ports


def test_a_free_port_is_none_that_outgoing_connections_get() -> None:
    chosen = [ports.free_port() for _ in range(50)]
    assert max(chosen) < 32_768
    assert len(set(chosen)) > 45
    assert all(map(ports.is_free, chosen))


def test_a_port_that_a_server_listens_on_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = ports.free_port(), ports.free_port()
    numbers = iter([taken, free])
    with socket.create_server((ports.LOOPBACK, taken)):
        monkeypatch.setattr(ports.secrets, "randbelow", lambda _: next(numbers) - ports._LOWEST)
        assert ports.free_port() == free
