from __future__ import annotations

import pytest

from labelmill.core.addresses.loopback import is_loopback


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", [None, "", "api.mistral.ai", "10.0.0.1", "::ffff:10.0.0.1", "localhost.example"])
def test_another_machine(host: str | None) -> None:
    assert not is_loopback(host)
