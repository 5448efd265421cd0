"""The embedded Redis is a real server that keeps what it was told."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from labelmill.contracts.errors import BrokerUnavailable
from labelmill_ops.embedded_redis import EmbeddedRedis
from labelmill_ops.ports import free_port


def test_what_was_queued_outlives_a_crash_of_the_server(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        client = redis.Redis.from_url(server.url)
        client.lpush("classify", "message")
        server.kill()
        server.start()
        assert client.lrange("classify", 0, -1) == [b"message"]
        client.close()


def test_the_server_never_drops_messages_for_memory(redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert client.config_get("appendonly") == {"appendonly": "yes"}
    assert client.config_get("bind") == {"bind": "127.0.0.1"}
    client.close()


def test_a_taken_port_is_said_in_one_sentence(tmp_path: Path) -> None:
    port = free_port()
    with (
        EmbeddedRedis(tmp_path / "first", port=port),
        pytest.raises(BrokerUnavailable, match="did not start"),
        EmbeddedRedis(tmp_path / "second", port=port),
    ):
        pass
