"""`labelmill purge` from outside: what it prints, and its exit codes."""

from __future__ import annotations

import json

import pytest
from command_line import Run

pytestmark = pytest.mark.acceptance


def test_purge_counts_in_json_and_refuses_an_age_without_a_unit(run: Run) -> None:
    assert run("db", "upgrade").code == 0
    done = run("purge", "--older-than", "90d", "--dry-run", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert set(document) == {"before", "older_than", "dry_run", "jobs", "kept", "rows", "files", "bytes"}
    assert document["dry_run"] is True
    assert set(document["jobs"]) == {"dataset", "training", "batch", "evaluation"}
    refused = run("purge", "--older-than", "90")
    assert refused.code == 2
    assert "90d" in refused.err
    assert run("purge").code == 2


def test_purge_without_a_database_says_so(run: Run) -> None:
    assert run("--database-url", "postgresql://127.0.0.1:1/nowhere", "purge", "--older-than", "1d").code == 7
