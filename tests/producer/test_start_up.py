"""A process that asks for one status loads nothing else: scripts and acceptance tests start hundreds of them."""

from __future__ import annotations

import os
import subprocess
import sys

_PROGRAM = """
import sys
from labelmill import Client

with Client() as client:
    assert client.jobs() == []
print(*sorted(sys.modules.keys() & set(sys.argv[1:])))
"""
_NEVER = ["alembic", "celery", "dotenv", "kombu", "numpy", "redis", "rich", "sqlalchemy.orm", "typer", "zstandard"]
_OF_POSTGRESQL = ["psycopg", "sqlalchemy.dialects.postgresql"]


def test_a_client_that_asks_for_a_status_loads_what_it_needs_and_one_database(database_url: str) -> None:
    env = os.environ | {"LABELMILL_DATABASE_URL": database_url}
    program = [sys.executable, "-c", _PROGRAM, *_NEVER, *_OF_POSTGRESQL]
    loaded = subprocess.run(program, env=env, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert loaded == ([] if database_url.startswith("sqlite") else _OF_POSTGRESQL)
