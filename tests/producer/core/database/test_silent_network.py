"""Connections to PostgreSQL: a network that goes silent is noticed at both ends."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from labelmill.core.database import connect, reading

pytestmark = pytest.mark.postgres


def test_the_server_looks_after_its_clients(postgres_url: str) -> None:
    engine = connect(postgres_url)
    with reading(engine) as connection:
        shown = {
            name: connection.scalar(text(f"SHOW {name}"))
            for name in ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
        }
        within = [int(shown[f"tcp_keepalives_{part}"]) for part in ("idle", "interval", "count")]
    engine.dispose()
    assert within[0] + within[1] * within[2] <= 30
    assert int(shown["tcp_user_timeout"]) == 30_000
