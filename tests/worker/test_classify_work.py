"""One chunk after the other in this process, against a strict stand-in for Mistral: nothing is lost, paid for twice or
believed unchecked."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import orjson
import pytest
from aiohttp import web
from sqlalchemy import select, text, update
from sqlalchemy.engine import Engine
from strict_mistral import KEY, LABELS, StrictMistral, first_times, label_of, ok, refuse_texts_with, result_of

from labelmill import actions
from labelmill.contracts.batch_writer import BatchWriter
from labelmill.contracts.database import reading, writing
from labelmill.contracts.dispatch import dispatch_batch
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.messages import ChunkMessage, JobMessage
from labelmill.contracts.queue import MessageSender
from labelmill.contracts.settings import Settings
from labelmill.contracts.specs import ClassifySpec
from labelmill.contracts.states import BatchState
from labelmill.contracts.tables import BatchRow, ChunkInputRow, ChunkRow, PredictionRow, utc_now
from labelmill.jobs import status_document
from labelmill.registry import resolve_model
from labelmill.results import read_results
from labelmill_worker.classify.engine import ClassifyEngine
from labelmill_worker.classify.work import work_on_chunk
from labelmill_worker.mistral.http_errors import retry_after_s
from labelmill_worker.store.chunks import Claim, LeaseLostError, Progress, claim_chunk, hand_back, record_progress
from labelmill_worker.store.owed import complete_finished_batches, open_batches, return_expired_chunks
from labelmill_worker.store.predictions import PredictionBlock

MODEL = "ft:classifier:stand-in"
PER_REQUEST = 10
DEADLINE_S = 30.0


class FakeSender:
    """Keeps messages in the order they were sent, each with the delay that was asked for."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[ChunkMessage, float]] = deque()

    def send(
        self, task: str, messages: Sequence[JobMessage], *, priority: str = "normal", countdown_s: float | None = None
    ) -> None:
        self.waiting += [(cast("ChunkMessage", message), countdown_s or 0.0) for message in messages]


class Mill:
    """A worker process without Celery: submit texts, then run the messages."""

    def __init__(self, engine: Engine, shared: ClassifyEngine, mistral: StrictMistral) -> None:
        self.engine, self.shared, self.mistral = engine, shared, mistral
        self.fake = FakeSender()
        self.sender = cast("MessageSender", self.fake)
        self.delays: list[float] = []

    def submit(self, texts: Sequence[str], *, chunk_texts: int = 2000, **options: Any) -> str:
        spec = ClassifySpec(source="-", text="text", id=None, **options)
        with writing(self.engine) as connection:
            model = resolve_model(connection, MODEL)
            row = BatchRow(id=new_id(Kind.BATCH), state=BatchState.SUBMITTING.value, model_no=model.no,
                           model_ref=MODEL, options=spec.model_dump(mode="json"), created_at=utc_now())  # fmt: skip
            values = {c.key: getattr(row, c.key) for c in BatchRow.__table__.columns if getattr(row, c.key) is not None}
            number = connection.execute(BatchRow.__table__.insert().values(values).returning(BatchRow.no)).scalar_one()
        with BatchWriter(self.engine, number, row.id, chunk_texts=chunk_texts) as writer:
            writer.add(texts)
            writer.finish()
        dispatch_batch(self.engine, self.sender, row.id)
        return row.id

    def work(self, batch_id: str, chunk: int = 0) -> None:
        work_on_chunk(self.shared, self.sender, batch_id, chunk)

    def run(self, batch_id: str) -> dict[str, Any]:
        """Carry out messages, at once whatever delay they ask for, until none is left. Returns the batch's status."""
        end = time.monotonic() + DEADLINE_S
        while self.fake.waiting:
            assert time.monotonic() < end, f"not done in time: {self.status(batch_id)}"
            message, delay_s = self.fake.waiting.popleft()
            self.delays.append(delay_s)
            self.work(message.job_id, message.chunk)
        return self.status(batch_id)

    def status(self, batch_id: str) -> dict[str, Any]:
        with reading(self.engine) as connection:
            document = status_document(connection, batch_id)
        rows = document["rows"]
        assert rows["submitted"] == sum(count for name, count in rows.items() if name != "submitted"), rows
        assert all(count >= 0 for count in rows.values()), rows
        return document

    def predictions(self, batch_id: str) -> dict[int, str | None]:
        """row → label of the view that analysts read; every row at most once."""
        with reading(self.engine) as connection:
            found = connection.execute(
                text("SELECT row, label FROM predictions WHERE batch_id = :batch ORDER BY row"), {"batch": batch_id}
            ).all()
        labels = {row: str(label) if label is not None else None for row, label in found}
        assert len(labels) == len(found), "a row has two answers"
        return labels

    def errors(self, batch_id: str) -> dict[int, str]:
        with reading(self.engine) as connection:
            found = connection.execute(
                text("SELECT row, code FROM row_errors WHERE batch_id = :batch ORDER BY row"), {"batch": batch_id}
            ).all()
        codes = {row: str(code) for row, code in found}
        assert len(codes) == len(found), "a row has two errors"
        return codes

    def free_slots(self) -> int:
        """Slots free once everything that was scheduled on the loop is done."""

        async def count() -> int:
            await asyncio.sleep(0)
            return self.shared.turnstile.free

        return self.shared.start(count()).result(5)


@pytest.fixture
def mistral() -> Iterator[StrictMistral]:
    with StrictMistral() as server:
        yield server


def _mill(engine: Engine, mistral: StrictMistral, redis_url: str, **settings: Any) -> tuple[Mill, ClassifyEngine]:
    given: dict[str, Any] = {"texts_per_request": PER_REQUEST, "max_in_flight": 8, "lease_s": 15} | settings
    made = Settings(broker_url=redis_url, mistral_url=mistral.url, MISTRAL_API_KEY=KEY, **given)
    shared = ClassifyEngine.from_settings(made, engine)
    return Mill(engine, shared, mistral), shared


@pytest.fixture
def mill(engine: Engine, mistral: StrictMistral, redis_url: str) -> Iterator[Mill]:
    made, shared = _mill(engine, mistral, redis_url)
    yield made
    assert made.free_slots() == 8, "a slot was lost"
    shared.close()


def _until(condition: Callable[[], object], deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.005)


def _texts(count: int) -> list[str]:
    return [f"text {'x' * (number % 4)} {number:05d}" for number in range(count)]


def _all_labelled(mill: Mill, batch_id: str, texts: Sequence[str]) -> None:
    assert mill.predictions(batch_id) == {row: label_of(content) for row, content in enumerate(texts)}


def _billed_once(mill: Mill, texts: Sequence[str]) -> None:
    assert mill.mistral.billed == Counter(set(texts))


def test_every_row_is_answered_once_and_billed_once(mill: Mill) -> None:
    texts = _texts(250)
    batch = mill.submit(texts, chunk_texts=60)
    status = mill.run(batch)
    assert status["state"] == "completed"
    assert status["rows"] == {
        "submitted": 250,
        "labelled": 250,
        "abstained": 0,
        "failed": 0,
        "cancelled": 0,
        "pending": 0,
    }
    _all_labelled(mill, batch, texts)
    _billed_once(mill, texts)
    assert status["requests"] == mill.mistral.requests == 25


def test_a_chunk_that_has_ended_leaves_memory_without_the_garbage_collector(mill: Mill) -> None:
    batch_id = mill.submit(_texts(40), chunk_texts=20)
    gc.collect()
    gc.disable()
    try:
        mill.run(batch_id)
        _until(lambda: not [one for one in gc.get_objects() if isinstance(one, Claim)])
    finally:
        gc.enable()


def test_duplicates_get_their_own_prediction_and_are_billed_once(mill: Mill) -> None:
    texts = [*_texts(30), *_texts(30), *_texts(45), "", ""]
    batch = mill.submit(texts, chunk_texts=20)
    status = mill.run(batch)
    assert status["state"] == "completed"
    assert (status["rows"]["labelled"], status["rows"]["failed"], status["duplicates"]) == (105, 2, 61)
    assert mill.predictions(batch) == {row: label_of(content) for row, content in enumerate(texts[:105])}
    assert mill.errors(batch) == {105: "empty_text", 106: "empty_text"}
    _billed_once(mill, texts[:105])


def test_a_message_delivered_twice_is_billed_once(mill: Mill) -> None:
    texts = _texts(40)
    batch = mill.submit(texts)
    mill.mistral.latency_s = 0.05
    both = [threading.Thread(target=mill.work, args=(batch,)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(DEADLINE_S)
    mill.work(batch)
    _billed_once(mill, texts)
    assert mill.status(batch)["state"] == "completed"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_text_fails_alone(mill: Mill, status: int) -> None:
    texts = _texts(40)
    texts[17] = "poison"
    mill.mistral.faults = [refuse_texts_with("poison", status)]
    batch = mill.submit(texts)
    document = mill.run(batch)
    assert document["state"] == "completed"
    assert mill.errors(batch) == {17: "request_refused"}
    assert sorted(mill.predictions(batch)) == [row for row in range(40) if row != 17]
    _billed_once(mill, [content for content in texts if content != "poison"])
    assert document["requests"] == mill.mistral.requests <= 4 + 2 * 4


def test_a_batch_refused_row_by_row_alike_stops_with_the_reason(mill: Mill) -> None:
    mill.mistral.faults = [refuse_texts_with("", 422)]
    batch = mill.submit(_texts(200))
    document = mill.run(batch)
    assert (document["state"], document["error_code"]) == ("failed", "request_refused")
    assert "Input text refused" in document["error"]
    assert mill.errors(batch) == {}
    assert document["rows"]["pending"] == 200


def test_a_slow_batch_that_is_refused_as_a_whole_stops_within_one_slice(
    engine: Engine, mistral: StrictMistral, redis_url: str
) -> None:
    mill, shared = _mill(engine, mistral, redis_url, texts_per_request=100, max_in_flight=16)
    mistral.faults = [refuse_texts_with("", 400)]
    mistral.latency_s = 0.1
    batch = mill.submit(_texts(2000))
    mill.work(batch)
    assert mill.status(batch)["state"] == "failed"
    assert mill.errors(batch) == {}
    assert mistral.most_concurrent <= 16
    assert mill.free_slots() == 16
    shared.close()


def test_refused_rows_do_not_stop_a_batch_that_has_answers(mill: Mill) -> None:
    good, bad = _texts(30), [f"poison {number}" for number in range(30)]
    mill.mistral.faults = [refuse_texts_with("poison")]
    batch = mill.submit([*good, *bad], chunk_texts=30)
    document = mill.run(batch)
    assert document["state"] == "completed"
    assert set(mill.errors(batch)) == set(range(30, 60))


@pytest.mark.parametrize(("status", "code"), [(401, "credentials_refused"), (403, "credentials_refused"),
                                              (404, "remote_failed"), (402, "permanent")])  # fmt: skip
def test_a_fault_that_will_not_pass_stops_the_batch_at_once(mill: Mill, status: int, code: str) -> None:
    mill.mistral.faults = [
        lambda texts, body: web.Response(status=status, body=f'{{"message":"no: {KEY} \\u0000"}}'.encode())
    ]
    batch = mill.submit(_texts(400))
    document = mill.run(batch)
    assert (document["state"], document["error_code"]) == ("failed", code)
    assert KEY not in document["error"]
    assert "[secret]" in document["error"]
    assert document["rows"]["pending"] == 400
    assert mill.mistral.requests <= 8  # what was in flight when the first answer came


def _too_few(texts: list[str]) -> web.Response:
    return ok([result_of(content) for content in texts[1:]])


def _unknown_label(texts: list[str]) -> web.Response:
    return ok([{"intent": {"scores": dict.fromkeys((*LABELS[1:], "epsilon"), 0.25)}} for _ in texts])


def _other_target(texts: list[str]) -> web.Response:
    return ok([{"mood": {"scores": dict.fromkeys(LABELS, 0.25)}} for _ in texts])


def _nan(texts: list[str]) -> web.Response:
    body = orjson.dumps({"results": [result_of(content) for content in texts]}).replace(b"0.85", b"NaN")
    return web.Response(body=body, content_type="application/json")


def _too_large_a_score(texts: list[str]) -> web.Response:
    body = orjson.dumps({"results": [result_of(content) for content in texts]}).replace(b"0.85", b"1e300")
    return web.Response(body=body, content_type="application/json")


def _null_scores(texts: list[str]) -> web.Response:
    return ok([{"intent": {"scores": None}} for _ in texts])


def _html(texts: list[str]) -> web.Response:
    return web.Response(body=b"<html><body>All is well</body></html>", content_type="text/html")


def _cut_short(texts: list[str]) -> web.Response:
    body = orjson.dumps({"results": [result_of(content) for content in texts]})
    return web.Response(body=body[: len(body) // 2], content_type="application/json")


MALFORMED = [_too_few, _unknown_label, _other_target, _nan, _too_large_a_score, _null_scores, _html, _cut_short]


@pytest.mark.parametrize("malformed", MALFORMED, ids=lambda make: make.__name__.strip("_"))
def test_a_malformed_answer_is_asked_for_again(mill: Mill, malformed: Callable[[list[str]], web.Response]) -> None:
    known = mill.submit(["a first text, so that the labels are known"])
    mill.run(known)
    mill.mistral.faults = [first_times(2, malformed)]
    texts = _texts(20)
    batch = mill.submit(texts)
    document = mill.run(batch)
    assert document["state"] == "completed"
    _all_labelled(mill, batch, texts)


@pytest.mark.parametrize("malformed", MALFORMED, ids=lambda make: make.__name__.strip("_"))
def test_a_text_that_is_always_answered_badly_fails_alone(
    mill: Mill, malformed: Callable[[list[str]], web.Response]
) -> None:
    known = mill.submit(["a first text, so that the labels are known"])
    mill.run(known)
    texts = _texts(20)
    texts[3] = "curse"
    mill.mistral.faults = [lambda asked, body: malformed(asked) if "curse" in asked else None]
    batch = mill.submit(texts)
    document = mill.run(batch)
    assert document["state"] == "completed"
    assert mill.errors(batch) == {3: "malformed_answer"}
    assert sorted(mill.predictions(batch)) == [row for row in range(20) if row != 3]


def test_a_mistral_that_answers_everybody_badly_for_a_while_costs_no_row(mill: Mill) -> None:
    mill.run(mill.submit(["a first text, so that the labels are known"]))
    mill.mistral.faults = [first_times(80, _html)]  # more than it takes to come down to single rows
    texts = _texts(10)
    batch = mill.submit(texts)
    assert mill.run(batch)["rows"]["labelled"] == 10
    _all_labelled(mill, batch, texts)


def test_labels_are_not_learnt_from_a_malformed_answer(mill: Mill) -> None:
    mill.mistral.faults = [first_times(1, _too_few), first_times(1, _null_scores)]
    texts = _texts(10)
    batch = mill.submit(texts)
    assert mill.run(batch)["state"] == "completed"
    _all_labelled(mill, batch, texts)


def test_a_429_holds_back_for_as_long_as_it_asks(mill: Mill) -> None:
    arrivals: list[float] = []
    answers = iter([web.Response(status=429, headers={"Retry-After": "1"}, body=b"{}")])

    def once(texts: list[str], body: dict[str, Any]) -> web.Response | None:
        arrivals.append(time.monotonic())
        return next(answers, None)

    mill.mistral.faults = [once]
    texts = _texts(10)
    batch = mill.submit(texts)
    assert mill.run(batch)["state"] == "completed"
    first, second = arrivals
    assert second - first >= 1.0
    _billed_once(mill, texts)


def test_a_long_429_ends_the_task_and_hands_the_rest_back(mill: Mill) -> None:
    mill.mistral.faults = [first_times(1, lambda texts: web.Response(status=429, headers={"Retry-After": "100"}))]
    batch = mill.submit(_texts(10))
    mill.fake.waiting.clear()
    mill.work(batch)
    (waiting,) = mill.fake.waiting
    assert 30 < waiting[1] <= 100
    with reading(mill.engine) as connection:
        state, attempts = connection.execute(select(ChunkRow.state, ChunkRow.attempts)).one()
    assert (state, attempts) == ("pending", 0)  # a limit is no fault: it never adds up to giving up
    assert mill.mistral.requests == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 409])
def test_faults_that_pass_are_retried(mill: Mill, status: int) -> None:
    mill.mistral.faults = [first_times(3, lambda texts: web.Response(status=status))]
    texts = _texts(40)
    batch = mill.submit(texts)
    document = mill.run(batch)
    assert document["state"] == "completed"
    _all_labelled(mill, batch, texts)
    _billed_once(mill, texts)
    assert document["requests"] == 4 + 3


def test_an_outage_is_waited_for_longer_and_longer(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelmill_worker.classify.work.SLICE_S", 0.3)
    mill.mistral.faults = [lambda texts, body: web.Response(status=503)]
    batch = mill.submit(_texts(40))
    for _ in range(4):
        mill.fake.waiting.clear()
        mill.work(batch)
        mill.delays.append(mill.fake.waiting[0][1])
    assert mill.delays == sorted(mill.delays)
    assert mill.delays[0] >= 2
    assert mill.delays[-1] >= 16
    assert mill.status(batch)["rows"]["pending"] == 40


def test_an_outage_that_does_not_end_fails_the_rows_with_its_reason(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelmill_worker.classify.work.SLICE_S", 0.05)
    monkeypatch.setattr("labelmill_worker.classify.work.GIVE_UP_AFTER", 3)
    mill.mistral.faults = [lambda texts, body: web.Response(status=503)]
    batch = mill.submit(_texts(20))
    document = mill.run(batch)
    assert (document["state"], document["rows"]["failed"]) == ("completed", 20)
    assert set(mill.errors(batch).values()) == {"remote_unavailable"}


def test_empty_texts_fail_unsent(mill: Mill) -> None:
    batch = mill.submit(["", "   ", "\t\n", "a text"])
    document = mill.run(batch)
    assert document["state"] == "completed"
    assert mill.errors(batch) == {0: "empty_text", 1: "empty_text", 2: "empty_text"}
    assert mill.mistral.billed == Counter(["a text"])


def test_a_batch_of_empty_texts_alone_asks_nothing(mill: Mill) -> None:
    batch = mill.submit(["", " "])
    assert mill.run(batch)["rows"]["failed"] == 2
    assert mill.mistral.requests == 0


def test_a_batch_without_rows_completes(mill: Mill) -> None:
    batch = mill.submit([])
    complete_finished_batches(mill.engine, open_batches(mill.engine))
    assert mill.status(batch)["state"] == "completed"


def _answers(labels: list[str]) -> PredictionBlock:
    """Answers to the first rows of a batch."""
    count = len(labels)
    scores = np.full((count, len(LABELS)), 0.05, np.float32)
    return PredictionBlock(0, np.arange(count), None, labels, [None] * count, scores.max(axis=1), scores)


def test_a_late_worker_writes_nothing(mill: Mill) -> None:
    texts = _texts(20)
    batch = mill.submit(texts)
    claim = claim_chunk(mill.engine, batch, 0, 15)
    assert claim is not None
    with writing(mill.engine) as connection:
        connection.execute(update(ChunkRow).values(lease_token="another's"))
    progress = Progress(blocks=[_answers(["alpha"])], labelled=1)
    with pytest.raises(LeaseLostError):
        record_progress(mill.engine, claim, progress, 15, done=True)
    with pytest.raises(LeaseLostError):
        hand_back(mill.engine, claim)
    assert mill.predictions(batch) == {}
    assert mill.status(batch)["rows"]["labelled"] == 0


def test_a_worker_that_loses_its_lease_at_work_writes_nothing_and_frees_its_slots(mill: Mill) -> None:
    batch = mill.submit(_texts(200))
    mill.mistral.latency_s = 0.3
    worker = threading.Thread(target=mill.work, args=(batch,))
    worker.start()
    _until(lambda: mill.mistral.concurrent == 8)
    with writing(mill.engine) as connection:
        connection.execute(update(ChunkRow).values(lease_token="another's"))
    worker.join(DEADLINE_S)
    assert mill.predictions(batch) == {}
    _until(lambda: mill.free_slots() == 8)
    with reading(mill.engine) as connection:
        assert connection.execute(select(ChunkRow.state, ChunkRow.lease_token)).one() == ("claimed", "another's")


def test_a_chunk_of_a_dead_worker_is_owed_again_and_only_its_unanswered_rows_are_sent(mill: Mill) -> None:
    texts = _texts(40)
    batch = mill.submit(texts)
    mill.run(mill.submit(["a first text, so that the labels are known"]))  # leaves both batches' messages done
    mill.mistral.billed.clear()
    assert mill.status(batch)["state"] == "completed"

    other = _texts(80)[40:]
    batch = mill.submit(other)
    mill.fake.waiting.clear()
    dead = claim_chunk(mill.engine, batch, 0, 15)
    assert dead is not None
    answered = _answers([label_of(text) for text in other[:25]])
    record_progress(mill.engine, dead, Progress(blocks=[answered], labelled=25), 15, done=False)
    mill.work(batch)
    assert mill.mistral.billed == Counter(), "a chunk under a live lease was worked on"
    with writing(mill.engine) as connection:
        connection.execute(update(ChunkRow).where(ChunkRow.batch_no == dead.batch_no).values(lease_until=1.0))
    assert return_expired_chunks(mill.engine) == 1
    mill.work(batch)
    assert mill.mistral.billed == Counter(other[25:])
    assert mill.status(batch)["state"] == "completed"
    _all_labelled(mill, batch, other)


def test_cancelling_keeps_what_was_answered(mill: Mill) -> None:
    texts = _texts(400)
    batch = mill.submit(texts)
    mill.mistral.latency_s = 0.1
    worker = threading.Thread(target=mill.work, args=(batch,))
    worker.start()
    _until(lambda: mill.status(batch)["rows"]["labelled"] > 0)
    actions.cancel(mill.engine, mill.sender, batch)
    worker.join(DEADLINE_S)
    document = mill.run(batch)
    assert document["state"] == "cancelled"
    kept = mill.predictions(batch)
    assert document["rows"]["labelled"] == len(kept) == sum(mill.mistral.billed.values())
    assert 0 < len(kept) < 400
    assert document["rows"]["cancelled"] == 400 - len(kept)


def test_retry_runs_the_failed_rows_alone(mill: Mill) -> None:
    texts = _texts(40)
    texts[7] = texts[31] = "poison"
    mill.mistral.faults = [refuse_texts_with("poison")]
    batch = mill.submit(texts, chunk_texts=20)
    assert mill.run(batch)["rows"]["failed"] == 2
    mill.mistral.faults = []
    mill.mistral.billed.clear()
    actions.retry(mill.engine, mill.sender, batch)
    document = mill.run(batch)
    assert (document["state"], document["rows"]["labelled"], document["rows"]["failed"]) == ("completed", 40, 0)
    assert mill.mistral.billed == Counter(["poison"])
    assert mill.errors(batch) == {}
    with pytest.raises(InvalidInput):
        actions.retry(mill.engine, mill.sender, batch)


def test_retry_of_a_stopped_batch_takes_over_chunks_that_are_still_held(mill: Mill) -> None:
    """The counts hold although a chunk with a failed row was in another worker's hands when the batch was retried."""
    texts = ["", *_texts(39)]
    batch = mill.submit(texts)
    mill.fake.waiting.clear()
    held = claim_chunk(mill.engine, batch, 0, 15)
    assert held is not None
    record_progress(
        mill.engine, held, Progress(errors=[(held.batch_no, 0, None, "empty_text", "it is empty")], failed=1), 15,
        done=False,
    )  # fmt: skip
    with writing(mill.engine) as connection:
        connection.execute(update(BatchRow).values(state="failed", error="the key was refused"))
    actions.retry(mill.engine, mill.sender, batch)
    with pytest.raises(LeaseLostError):
        record_progress(mill.engine, held, Progress(), 15, done=False)
    document = mill.run(batch)
    assert (document["state"], document["rows"]["labelled"], document["rows"]["failed"]) == ("completed", 39, 1)


def test_no_more_requests_are_in_flight_than_allowed(mill: Mill) -> None:
    texts = _texts(600)
    batch = mill.submit(texts, chunk_texts=200)
    mill.mistral.latency_s = 0.05
    workers = [threading.Thread(target=mill.work, args=(batch, chunk)) for chunk in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(DEADLINE_S)
    assert mill.mistral.most_concurrent == 8
    assert mill.run(batch)["state"] == "completed"
    _billed_once(mill, texts)


def test_odd_texts_survive(mill: Mill) -> None:
    texts = [
        "👩🏽‍🚀 zażółć",
        "bell \x07 and escape \x1b",
        "a NUL \x00 within",
        "y" * 300_000,
        "\u202eright to left",
        "a\nb\r\nc",
        "{}",
    ]
    batch = mill.submit(texts)
    assert mill.run(batch)["rows"]["labelled"] == len(texts)
    _billed_once(mill, texts)
    assert [document["text"] for document in read_results(mill.engine, batch)] == texts


def test_an_abstained_row_keeps_its_scores(mill: Mill) -> None:
    texts = _texts(8)
    batch = mill.submit(texts, thresholds={"intent": 0.9})
    document = mill.run(batch)
    assert document["rows"]["abstained"] == 8
    for row in read_results(mill.engine, batch):
        prediction = row["predictions"]["intent"]
        assert (prediction["label"], prediction["abstained"]) == (None, True)
        assert prediction["scores"] == pytest.approx(result_of(row["text"])["intent"]["scores"])
    with reading(mill.engine) as connection:
        assert connection.scalars(select(PredictionRow.label)).all() == [None] * 8


def test_a_slice_ends_and_the_rest_is_handed_back(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelmill_worker.classify.work.SLICE_S", 0.3)
    mill.mistral.latency_s = 0.1
    texts = _texts(400)
    batch = mill.submit(texts)
    document = mill.run(batch)
    assert len(mill.delays) > 1
    assert set(mill.delays) == {0.0}
    assert document["state"] == "completed"
    _billed_once(mill, texts)
    assert document["requests"] == 40


def test_a_chunk_whose_input_is_unreadable_is_set_aside_and_the_rest_done(mill: Mill) -> None:
    texts = [*_texts(40), *_texts(2)]
    batch = mill.submit(texts, chunk_texts=20)
    with writing(mill.engine) as connection:
        connection.execute(update(ChunkInputRow).where(ChunkInputRow.number == 0).values(data=b"no zstd"))
    document = mill.run(batch)
    assert sorted(mill.predictions(batch)) == list(range(20, 40))
    assert document["state"] == "completed"
    assert (document["rows"]["labelled"], document["rows"]["failed"]) == (20, 22)
    assert mill.errors(batch) == dict.fromkeys([*range(20), 40, 41], "unreadable_input")
    with reading(mill.engine) as connection:
        assert connection.scalar(select(ChunkRow.state).where(ChunkRow.number == 0)) == "failed"
        assert connection.scalar(text("SELECT count(*) FROM events WHERE chunk = 0")) == 1


def test_a_429_with_redis_gone_puts_the_chunk_off(engine: Engine, mistral: StrictMistral) -> None:
    mill, shared = _mill(engine, mistral, "redis://127.0.0.1:1/0")
    mistral.faults = [first_times(1, lambda texts: web.Response(status=429))]
    batch = mill.submit(_texts(10))
    mill.fake.waiting.clear()
    mill.work(batch)
    with reading(engine) as connection:
        assert connection.scalar(select(ChunkRow.state)) == "pending"
    assert mill.free_slots() == 8
    shared.close()


def test_a_retry_after_without_end_does_not_hold_the_fleet_forever() -> None:
    assert retry_after_s("inf") is not None
    assert max(retry_after_s(value) or 0.0 for value in ("inf", "1e12", "nan", "-3")) <= 3600


def test_the_cache_answers_what_an_earlier_batch_of_the_model_was_answered(mill: Mill) -> None:
    texts = _texts(60)
    first = mill.submit(texts[:40], chunk_texts=20)
    assert mill.run(first)["cached"] == 0
    mill.mistral.billed.clear()
    mixed = [*texts[20:], texts[0], texts[59]]  # 20 known, 20 new, one known from elsewhere, one repeated
    second = mill.submit(mixed, chunk_texts=25, cache=True)
    document = mill.run(second)
    assert document["state"] == "completed"
    assert mill.mistral.billed == Counter(texts[40:])
    assert (document["cached"], document["rows"]["labelled"], document["duplicates"]) == (21, 42, 1)
    assert mill.predictions(second) == {row: label_of(content) for row, content in enumerate(mixed)}


def test_a_batch_that_does_not_ask_for_the_cache_asks_mistral(mill: Mill) -> None:
    texts = _texts(20)
    mill.run(mill.submit(texts))
    mill.mistral.billed.clear()
    mill.run(mill.submit(texts))
    assert mill.mistral.billed == Counter(texts)
