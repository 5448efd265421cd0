"""Nothing of a batch that runs by batch jobs is sent in realtime, whatever message arrives."""

from __future__ import annotations

from mill import some_texts
from remote_mill import RemoteMill

from labelmill.contracts.ids import remote_batch_of
from labelmill.contracts.messages import ChunkMessage
from labelmill.core.jobs.dispatch import dispatch_batch
from labelmill_worker.runtime.tasks import classify
from labelmill_worker.store.chunks import claim_chunk
from labelmill_worker.store.fairness import most_deserving_chunk, unserved_batch


def test_its_chunks_are_neither_chosen_nor_claimed_nor_sent(mill: RemoteMill) -> None:
    batch = mill.submit(some_texts(120))
    assert most_deserving_chunk(mill.engine, batch, 0) is None
    assert unserved_batch(mill.engine) is None
    assert claim_chunk(mill.engine, batch, 0, 15) is None
    mill.waiting.clear()
    dispatch_batch(mill.engine, mill.sender, batch)
    assert not mill.waiting, "its remote batch has begun already"


def test_a_message_that_names_a_chunk_of_it_does_nothing(mill: RemoteMill) -> None:
    batch = mill.submit(some_texts(120))
    assert [remote_batch_of(message.job_id) for message in mill.waiting] == [1]
    classify.run(mill.resources, ChunkMessage(job_id=batch, chunk=0))
    assert mill.status(batch)["rows"]["pending"] == 120
    assert mill.run(batch)["rows"]["labelled"] == 120


def test_two_workers_at_one_step_do_it_once(mill: RemoteMill) -> None:
    batch = mill.submit(some_texts(60))
    message = mill.waiting[0]
    mill.waiting.extend([message, message])
    assert mill.run(batch)["rows"]["labelled"] == 60
    assert len(mill.jobs.created) == 1
