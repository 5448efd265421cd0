"""A batch whose submission was killed says so; one whose source is slow does not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import select, update

from labelmill import Client
from labelmill.core.chunks.writer import BatchWriter
from labelmill.core.database import db_now, reading, writing
from labelmill.core.database.tables import BatchRow
from labelmill.services.submissions import heartbeat


class Killed(BaseException):
    """The process dies."""


def interrupted(client: Client, monkeypatch: pytest.MonkeyPatch, key: str | None) -> str:
    """A batch whose submission was killed ten minutes ago."""

    def die(_: BatchWriter) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(BatchWriter, "finish", die)
        patched.setattr("labelmill.services.batches.end_broken_submission", lambda *_: None)
        with pytest.raises(Killed):
            client.classify(["a", "b"], "m", idempotency_key=key)
    (job,) = client.jobs("batch", limit=1)
    assert client.status(job["id"])["waiting_for"] is None
    with writing(client.context.engine) as connection:
        connection.execute(update(BatchRow).values(submitter_seen_at=db_now() - 600))
    return job["id"]


def test_a_submission_that_was_killed_is_to_be_cancelled(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = interrupted(client, monkeypatch, None)
    waiting_for = client.status(batch_id)["waiting_for"] or {"reason": "", "message": "", "since": None}
    assert waiting_for["reason"] == "submission_interrupted"
    assert waiting_for["message"] == f"its submission was interrupted: cancel it: labelmill cancel {batch_id}"
    assert waiting_for["since"]
    client.cancel(batch_id)
    assert client.status(batch_id)["waiting_for"] is None


def test_one_with_a_key_can_be_submitted_again_too(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = interrupted(client, monkeypatch, "k")
    waiting_for = client.status(batch_id)["waiting_for"] or {"message": ""}
    assert "submit it again under its key, or cancel it" in waiting_for["message"]
    assert client.classify(["a", "b"], "m", idempotency_key="k").id == batch_id
    assert (client.status(batch_id)["waiting_for"] or {}).get("reason") != "submission_interrupted"


def test_a_slow_source_is_not_an_interruption(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.01)
    engine = client.context.engine

    def seen_at() -> float:
        with reading(engine) as connection:
            return float(connection.scalar(select(BatchRow.submitter_seen_at)) or 0)

    def texts() -> Iterator[str]:
        yield from ["a"] * 100_000  # more than is read before a batch is made
        with writing(engine) as connection:
            connection.execute(update(BatchRow).values(submitter_seen_at=db_now() - 600))
            old = float(connection.scalar(select(BatchRow.submitter_seen_at)) or 0)  # before the next heartbeat
        end = time.monotonic() + 60
        while seen_at() <= old + 500:
            assert time.monotonic() < end
            time.sleep(0.005)
        yield "b"

    batch = client.classify(texts(), "m")
    assert batch.status()["rows"]["submitted"] == 100_001
