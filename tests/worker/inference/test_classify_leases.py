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
from labelmill.core.jobs.dispatch import dispatch_batch
from labelmill.core.jobs.leases import LeaseLost
from labelmill.services.context import ServiceContext
from labelmill.services.jobs import retrying
from labelmill.services.jobs.requests import RetryRequest
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
    is_lost = threading.Event()
    mill.mistral.holds = lambda: not is_lost.is_set()
    worker = threading.Thread(target=mill.work, args=(batch,))
    worker.start()
    until(lambda: mill.mistral.concurrent == 8)
    with writing(mill.engine) as connection:
        connection.execute(update(ChunkRow).values(lease_token="another's"))
    is_lost.set()
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
    is_cancelled = threading.Event()
    mill.mistral.holds = lambda: mill.mistral.requests > 16 and not is_cancelled.is_set()
    worker = threading.Thread(target=mill.work, args=(batch,))
    worker.start()
    until(lambda: mill.status(batch)["rows"]["labelled"] > 0)
    cancel(mill.engine, mill.sender, batch)
    is_cancelled.set()
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


def test_retry_leaves_chunks_to_the_workers_that_still_finish_them(mill: Mill) -> None:
    """Their answers are recorded, for they are paid for; the counts hold although a chunk has a failed row."""
    texts = [*some_texts(39), ""]
    batch = mill.submit(texts, chunk_texts=20)
    mill.fake.waiting.clear()
    first, second = claim_chunk(mill.engine, batch, 0, 15), claim_chunk(mill.engine, batch, 1, 15)
    assert first is not None
    assert second is not None
    error = (second.batch_no, 39, None, "empty_text", "it is empty")
    record_progress(mill.engine, second, ChunkProgress(errors=[error], failed=1), 15, done=False)
    with writing(mill.engine) as connection:
        connection.execute(update(BatchRow).values(state="failed", error="the key was refused"))
    context = ServiceContext(mill.engine, mill.sender)
    (warning,) = retrying.retry(context, RetryRequest(batch)).warnings
    assert warning.message.startswith("1 failed rows are in chunks that workers are still finishing")

    answered = ChunkProgress(blocks=[answers_of([label_of(text) for text in texts[:20]])], labelled=20)
    record_progress(mill.engine, first, answered, 15, done=True)
    release_chunk(mill.engine, second)
    dispatch_batch(mill.engine, mill.sender, batch)  # as recovery does
    document = mill.run(batch)
    assert (document["state"], document["rows"]["labelled"], document["rows"]["failed"]) == ("completed", 39, 1)
    assert mill.mistral.billed == Counter(texts[20:39])
    assert mill.errors(batch).keys() == {39}

    retry(mill.engine, mill.sender, batch)  # nobody holds it now
    assert mill.run(batch)["rows"]["failed"] == 1


def test_retry_takes_over_chunks_of_dead_workers(mill: Mill) -> None:
    texts = ["", *some_texts(39)]
    batch = mill.submit(texts)
    mill.fake.waiting.clear()
    dead = claim_chunk(mill.engine, batch, 0, 15)
    assert dead is not None
    error = (dead.batch_no, 0, None, "empty_text", "it is empty")
    record_progress(mill.engine, dead, ChunkProgress(errors=[error], failed=1), 15, done=False)
    with writing(mill.engine) as connection:
        connection.execute(update(BatchRow).values(state="failed", error="the key was refused"))
        connection.execute(update(ChunkRow).values(lease_until=1.0))
    retry(mill.engine, mill.sender, batch)
    with pytest.raises(LeaseLost):
        record_progress(mill.engine, dead, ChunkProgress(), 15, done=False)
    document = mill.run(batch)
    assert (document["state"], document["rows"]["labelled"], document["rows"]["failed"]) == ("completed", 39, 1)
