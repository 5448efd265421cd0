"""Workers that die, come late or are told to stop, and batches that are retried: nothing is written twice."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from asked import cancel, retry
from mill import DEADLINE_S, Mill, answers_of, assert_all_labelled, some_texts, until
from sqlalchemy import select, update
from strict_mistral import label_of, refuse_texts_with

from labelmill.contracts.errors import InvalidInput
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, ChunkRow
from labelmill.core.jobs.leases import LeaseLost
from labelmill_worker.store.chunks import claim_chunk, release_chunk
from labelmill_worker.store.progress import ChunkProgress, record_progress
from labelmill_worker.store.stalled import return_expired_chunks


def test_a_late_worker_writes_nothing(mill: Mill) -> None:
    texts = some_texts(20)
    batch = mill.submit(texts)
    claim = claim_chunk(mill.engine, batch, 0, 15)
    assert claim is not None
    with writing(mill.engine) as connection:
        connection.execute(update(ChunkRow).values(lease_token="another's"))
    progress = ChunkProgress(blocks=[answers_of(["alpha"])], labelled=1)
    with pytest.raises(LeaseLost):
        record_progress(mill.engine, claim, progress, 15, done=True)
    with pytest.raises(LeaseLost):
        release_chunk(mill.engine, claim)
    assert mill.predictions(batch) == {}
    assert mill.status(batch)["rows"]["labelled"] == 0


def test_a_worker_that_loses_its_lease_at_work_writes_nothing_and_frees_its_slots(mill: Mill) -> None:
    batch = mill.submit(some_texts(200))
    mill.mistral.latency_s = 0.3
    worker = threading.Thread(target=mill.work, args=(batch,))
    worker.start()
    until(lambda: mill.mistral.concurrent == 8)
    with writing(mill.engine) as connection:
        connection.execute(update(ChunkRow).values(lease_token="another's"))
    worker.join(DEADLINE_S)
    assert mill.predictions(batch) == {}
    until(lambda: mill.free_slots() == 8)
    with reading(mill.engine) as connection:
        assert connection.execute(select(ChunkRow.state, ChunkRow.lease_token)).one() == ("claimed", "another's")


def test_a_chunk_of_a_dead_worker_is_owed_again_and_only_its_unanswered_rows_are_sent(mill: Mill) -> None:
    texts = some_texts(40)
    batch = mill.submit(texts)
    mill.run(mill.submit(["a first text, so that the labels are known"]))  # leaves both batches' messages done
    mill.mistral.billed.clear()
    assert mill.status(batch)["state"] == "completed"

    other = some_texts(80)[40:]
    batch = mill.submit(other)
    mill.fake.waiting.clear()
    dead = claim_chunk(mill.engine, batch, 0, 15)
    assert dead is not None
    answered = answers_of([label_of(text) for text in other[:25]])
    record_progress(mill.engine, dead, ChunkProgress(blocks=[answered], labelled=25), 15, done=False)
    mill.work(batch)
    assert mill.mistral.billed == Counter(), "a chunk under a live lease was worked on"
    with writing(mill.engine) as connection:
        connection.execute(update(ChunkRow).where(ChunkRow.batch_no == dead.batch_no).values(lease_until=1.0))
    assert return_expired_chunks(mill.engine) == 1
    mill.work(batch)
    assert mill.mistral.billed == Counter(other[25:])
    assert mill.status(batch)["state"] == "completed"
    assert_all_labelled(mill, batch, other)


def test_cancelling_keeps_what_was_answered(mill: Mill) -> None:
    texts = some_texts(400)
    batch = mill.submit(texts)
    mill.mistral.latency_s = 0.1
    worker = threading.Thread(target=mill.work, args=(batch,))
    worker.start()
    until(lambda: mill.status(batch)["rows"]["labelled"] > 0)
    cancel(mill.engine, mill.sender, batch)
    worker.join(DEADLINE_S)
    document = mill.run(batch)
    assert document["state"] == "cancelled"
    kept = mill.predictions(batch)
    assert document["rows"]["labelled"] == len(kept) == sum(mill.mistral.billed.values())
    assert 0 < len(kept) < 400
    assert document["rows"]["cancelled"] == 400 - len(kept)


def test_retry_runs_the_failed_rows_alone(mill: Mill) -> None:
    texts = some_texts(40)
    texts[7] = texts[31] = "poison"
    mill.mistral.faults = [refuse_texts_with("poison")]
    batch = mill.submit(texts, chunk_texts=20)
    assert mill.run(batch)["rows"]["failed"] == 2
    mill.mistral.faults = []
    mill.mistral.billed.clear()
    retry(mill.engine, mill.sender, batch)
    document = mill.run(batch)
    assert (document["state"], document["rows"]["labelled"], document["rows"]["failed"]) == ("completed", 40, 0)
    assert mill.mistral.billed == Counter(["poison"])
    assert mill.errors(batch) == {}
    with pytest.raises(InvalidInput):
        retry(mill.engine, mill.sender, batch)


def test_retry_of_a_stopped_batch_takes_over_chunks_that_are_still_held(mill: Mill) -> None:
    """The counts hold although a chunk with a failed row was in another worker's hands when the batch was retried."""
    texts = ["", *some_texts(39)]
    batch = mill.submit(texts)
    mill.fake.waiting.clear()
    held = claim_chunk(mill.engine, batch, 0, 15)
    assert held is not None
    record_progress(
        mill.engine,
        held,
        ChunkProgress(errors=[(held.batch_no, 0, None, "empty_text", "it is empty")], failed=1),
        15,
        done=False,
    )
    with writing(mill.engine) as connection:
        connection.execute(update(BatchRow).values(state="failed", error="the key was refused"))
    retry(mill.engine, mill.sender, batch)
    with pytest.raises(LeaseLost):
        record_progress(mill.engine, held, ChunkProgress(), 15, done=False)
    document = mill.run(batch)
    assert (document["state"], document["rows"]["labelled"], document["rows"]["failed"]) == ("completed", 39, 1)
