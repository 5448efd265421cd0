"""The throw-away PostgreSQL."""

from __future__ import annotations

import pytest

from labelmill_ops import embedded_postgres
from labelmill_ops.embedded_postgres import EmbeddedPostgres
from labelmill_ops.ports import free_port


@pytest.mark.postgres
def test_a_server_whose_port_another_one_took_starts_on_the_next(
    postgres_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = free_port()
    numbers = iter([postgres_server.port, free])
    monkeypatch.setattr(embedded_postgres, "free_port", lambda: next(numbers))
    with EmbeddedPostgres() as server:
        assert server.port == free
