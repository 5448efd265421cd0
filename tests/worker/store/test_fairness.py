"""Which chunk a worker takes, whatever the message said; and how many messages of a batch are on the way at once."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
from sqlalchemy import insert, update
from sqlalchemy.engine import Engine

from labelmill.core.database import writing
from labelmill.core.database.tables import BatchRow, ChunkRow, ModelRow
from labelmill.core.jobs.dispatch import WINDOW, dispatch_batch
from labelmill.core.queue.sender import MessageSender
from labelmill_worker.store.fairness import most_deserving_chunk, unserved_batch


@pytest.fixture(autouse=True)
def _model(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(insert(ModelRow).values(no=1, name="m", version=1, method="factory"))


def batch(engine: Engine, no: int, states: list[str], **values: Any) -> str:
    """A batch whose chunks are in these states. Returns its id."""
    batch_id = f"batch_{no:024x}"
    given = {"state": "running", "priority": "normal"} | values
    chunks = [
        {"batch_no": no, "number": number, "state": state, "first_row": number, "rows": 1, "texts": 1}
        for number, state in enumerate(states)
    ]
    with writing(engine) as connection:
        connection.execute(insert(BatchRow).values(no=no, id=batch_id, model_no=1, model_ref="m", options={}, **given))
        connection.execute(insert(ChunkRow), chunks)
    return batch_id


def test_a_higher_priority_comes_first_though_it_has_more_chunks_in_work(engine: Engine) -> None:
    low = batch(engine, 1, ["pending"] * 3, priority="low")
    normal = batch(engine, 2, ["claimed", "pending"])
    high = batch(engine, 3, ["claimed", "claimed", "pending"], priority="high")
    assert most_deserving_chunk(engine, low, 0) == (high, 2)
    with writing(engine) as connection:
        connection.execute(update(ChunkRow).where(ChunkRow.batch_no == 3).values(state="done"))
    assert most_deserving_chunk(engine, low, 0) == (normal, 1)


def test_among_equals_in_priority_the_batch_with_the_fewest_chunks_in_work_comes_first(engine: Engine) -> None:
    large = batch(engine, 1, ["claimed", "claimed", *["pending"] * 9])
    small = batch(engine, 2, ["claimed", "pending"])
    assert most_deserving_chunk(engine, large, 5) == (small, 1)
    assert unserved_batch(engine) is None
    newest = batch(engine, 3, ["pending", "pending"])
    assert most_deserving_chunk(engine, large, 5) == (newest, 0)
    assert unserved_batch(engine) == newest


def test_among_equals_the_messages_own_chunk_is_taken(engine: Engine) -> None:
    batch(engine, 1, ["pending", "pending"])
    second = batch(engine, 2, ["pending", "pending"])
    assert most_deserving_chunk(engine, second, 1) == (second, 1)


def test_what_is_done_stopped_or_deferred_is_not_runnable(engine: Engine) -> None:
    batch(engine, 1, ["pending"], state="cancelled")
    put_off = batch(engine, 2, ["done", "pending"])
    with writing(engine) as connection:
        connection.execute(update(ChunkRow).where(ChunkRow.batch_no == 2).values(sent_at=time.time() + 60))
    assert most_deserving_chunk(engine, put_off, 0) is None
    assert most_deserving_chunk(engine, put_off, 1) == (put_off, 1)  # its message comes when its time has come


class Outbox:
    """Keeps the chunks that messages name."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def send(self, task: str, messages: Any, **_: Any) -> None:
        self.sent += [message.chunk for message in messages]


def test_as_many_messages_are_on_the_way_as_the_window_holds(engine: Engine) -> None:
    outbox = Outbox()
    sender = cast("MessageSender", outbox)
    batch_id = batch(engine, 1, ["pending"] * (WINDOW + 20))
    assert dispatch_batch(engine, sender, batch_id) == WINDOW
    assert outbox.sent == list(range(WINDOW))
    assert dispatch_batch(engine, sender, batch_id) == 0
    with writing(engine) as connection:
        connection.execute(update(ChunkRow).where(ChunkRow.number < 5).values(state="claimed"))
    assert dispatch_batch(engine, sender, batch_id) == 0  # what is in work counts too
    with writing(engine) as connection:
        connection.execute(update(ChunkRow).where(ChunkRow.number < 5).values(state="done"))
    assert dispatch_batch(engine, sender, batch_id) == 5
    assert outbox.sent == list(range(WINDOW + 5))
