"""Every submission takes `--idempotency-key` and `--metadata`, and `status` finds jobs by metadata."""

from __future__ import annotations

import json

import pytest
from command_line import Run

pytestmark = pytest.mark.acceptance

_PREPARE = ("prepare", "data", "good.jsonl", "--target", "intent=intent")


def test_a_command_that_is_run_twice_under_a_key_makes_one_job(run: Run) -> None:
    key = ("--idempotency-key", "k", "--metadata", "team=search", "--metadata", "order=a=b")
    first, again = (json.loads(run(*_PREPARE, *key).out)["id"] for _ in range(2))
    assert first == again
    other = run(*_PREPARE, *key, "--seed", "7")
    assert other.code == 2
    assert f"the idempotency key stands for {first}" in other.sentence
    listed = json.loads(run("status", "--metadata", "order=a=b", "--metadata", "team=search").out)
    assert [(job["id"], job["metadata"]) for job in listed] == [(first, {"order": "a=b", "team": "search"})]
    assert json.loads(run("status", "--metadata", "team=other").out) == []


@pytest.mark.parametrize(
    "written", ["team", "=search", f"{'x' * 65}=a", f"team={'x' * 501}"], ids=lambda each: each[:9]
)
def test_metadata_that_is_none_is_refused(run: Run, written: str) -> None:
    for command in (_PREPARE, ("classify", "good.jsonl", "--model", "ft:x"), ("status",)):
        ended = run(*command, "--metadata", written)
        assert ended.code == 2
        assert "--metadata" in ended.sentence
    assert json.loads(run("status").out) == []
