"""Mistral's moderation by batch jobs."""

from __future__ import annotations

from collections import Counter

import pytest
from mill import some_texts
from mistral_answers import label_of, refuse_texts_with
from remote_mill import RemoteMill
from sqlalchemy import text

from labelmill.core.database import reading

MODEL = "mistral-moderation-2603"


@pytest.mark.parametrize("chats", [False, True], ids=["texts", "chats"])
def test_texts_and_chats_are_moderated(mill: RemoteMill, chats: bool) -> None:
    mill.memory.faults = [refuse_texts_with("poison")]
    texts = [*some_texts(60), "a poison text", *some_texts(5)]
    batch = mill.submit(texts, model=MODEL, chats=chats)
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"], status["rows"]["failed"]) == ("completed", 65, 1)
    assert mill.errors(batch) == {60: "request_refused"}
    with reading(mill.engine) as connection:
        found = connection.execute(text("SELECT row, target, labels FROM predictions ORDER BY row")).all()
    held = {row: labels if isinstance(labels, str) else ",".join(labels or ()) for row, _, labels in found}
    assert {target for _, target, _ in found} == {"moderation"}
    assert all(label_of(texts[row]) in labels for row, labels in held.items())
    assert mill.memory.billed == Counter(some_texts(60))
    path = "/v1/chat/moderations" if chats else "/v1/moderations"
    assert {job.endpoint for job in mill.jobs.created} == {path}
