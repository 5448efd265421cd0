"""Requests that Mistral refuses and answers that cannot be believed: a bad row stays its own problem."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from aiohttp import web
from asked import retry
from mill import Mill, assert_all_labelled, assert_billed_once, open_mill, some_texts
from sqlalchemy.engine import Engine
from strict_mistral import KEY, LABELS, StrictMistral, first_times, ok, refuse_texts_with, result_of

from labelmill.contracts.errors import RequestRefused
from labelmill_worker.inference import retry_policy
from labelmill_worker.inference.bisection import REFUSED_TEXTS, BatchVerdict
from labelmill_worker.ports.inference import Call


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_text_fails_alone(mill: Mill, status: int) -> None:
    texts = some_texts(40)
    texts[17] = "poison"
    mill.mistral.faults = [refuse_texts_with("poison", status)]
    batch = mill.submit(texts)
    document = mill.run(batch)
    assert document["state"] == "completed"
    assert mill.errors(batch) == {17: "request_refused"}
    assert sorted(mill.predictions(batch)) == [row for row in range(40) if row != 17]
    assert_billed_once(mill, [content for content in texts if content != "poison"])
    assert document["requests"] == mill.mistral.requests <= 4 + 2 * 4


def test_a_batch_refused_row_by_row_alike_stops_with_the_reason(mill: Mill) -> None:
    mill.mistral.faults = [refuse_texts_with("", 422)]
    batch = mill.submit(some_texts(200))
    document = mill.run(batch)
    assert (document["state"], document["error_code"]) == ("failed", "request_refused")
    assert "Input text refused" in document["error"]
    assert mill.errors(batch) == {}
    assert document["rows"]["pending"] == 200


def test_a_slow_batch_that_is_refused_as_a_whole_stops_within_one_slice(
    engine: Engine, mistral: StrictMistral, redis_url: str
) -> None:
    mill, runtime = open_mill(engine, mistral, redis_url, texts_per_request=100, max_in_flight=16)
    mistral.faults = [refuse_texts_with("", 400)]
    mistral.latency_s = 0.1
    batch = mill.submit(some_texts(2000))
    mill.work(batch)
    assert mill.status(batch)["state"] == "failed"
    assert mill.errors(batch) == {}
    assert mistral.most_concurrent <= 16
    assert mill.free_slots() == 16
    runtime.close()


def test_a_batch_of_one_text_a_request_stops_once_the_first_texts_are_refused_alike(
    engine: Engine, mistral: StrictMistral, redis_url: str
) -> None:
    mill, runtime = open_mill(engine, mistral, redis_url, texts_per_request=1, max_in_flight=8)
    mistral.faults = [refuse_texts_with("", 422)]
    batch = mill.submit(some_texts(400), chunk_texts=100)
    document = mill.run(batch)
    runtime.close()
    assert (document["state"], document["error_code"]) == ("failed", "request_refused")
    assert mistral.requests < REFUSED_TEXTS + 8
    assert len(mill.errors(batch)) == REFUSED_TEXTS - 1
    assert document["rows"]["pending"] == 400 - (REFUSED_TEXTS - 1)


def test_a_small_batch_of_one_text_a_request_has_a_reason_for_each_text(
    engine: Engine, mistral: StrictMistral, redis_url: str
) -> None:
    mill, runtime = open_mill(engine, mistral, redis_url, texts_per_request=1)
    mistral.faults = [refuse_texts_with("", 422)]
    batch = mill.submit(some_texts(REFUSED_TEXTS - 1))
    document = mill.run(batch)
    runtime.close()
    assert (document["state"], document["rows"]["failed"]) == ("completed", REFUSED_TEXTS - 1)
    assert set(mill.errors(batch).values()) == {"request_refused"}


def test_texts_that_are_refused_one_by_one_do_not_stop_a_batch_of_which_another_process_was_answered(
    mill: Mill, engine: Engine, mistral: StrictMistral, redis_url: str
) -> None:
    other, runtime = open_mill(engine, mistral, redis_url, texts_per_request=1)
    mistral.faults = [refuse_texts_with("poison")]
    batch = mill.submit([*some_texts(30), *(f"poison {number}" for number in range(30))], chunk_texts=30)
    mill.work(batch, 0)
    other.work(batch, 1)
    assert mill.status(batch)["state"] == "running"
    other.fake.waiting.extend(mill.fake.waiting)
    document = other.run(batch)
    runtime.close()
    assert document["state"] == "completed"
    assert set(mill.errors(batch)) == set(range(30, 60))


def test_refusals_that_come_before_the_first_answers_do_not_stop_a_batch(
    engine: Engine, mistral: StrictMistral, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill, runtime = open_mill(engine, mistral, redis_url, texts_per_request=1, max_in_flight=64)
    answer = mistral.answer

    async def slow_unless_refused(call: Call, *, has_key: bool = True) -> web.Response:
        if "poison" not in str(call.body["input"]):
            await asyncio.sleep(0.3)
        return await answer(call, has_key=has_key)

    monkeypatch.setattr(mistral, "answer", slow_unless_refused)
    mistral.faults = [refuse_texts_with("poison")]
    batch = mill.submit([*(f"poison {number}" for number in range(30)), *some_texts(50)])
    document = mill.run(batch)
    runtime.close()
    assert document["state"] == "completed"
    assert set(mill.errors(batch)) == set(range(30))


def test_texts_that_are_refused_for_different_reasons_say_nothing_of_their_batch() -> None:
    verdict = BatchVerdict()
    reasons = [RequestRefused(f"reason {number // 10}", 422) for number in range(100)]
    assert not any(verdict.note_refused_text(reason) for reason in reasons)
    alike = [verdict.note_refused_text(RequestRefused("no such schema", 422)) for _ in range(REFUSED_TEXTS)]
    assert alike == [False] * (REFUSED_TEXTS - 1) + [True]


def test_refused_rows_do_not_stop_a_batch_that_has_answers(mill: Mill) -> None:
    good, bad = some_texts(30), [f"poison {number}" for number in range(30)]
    mill.mistral.faults = [refuse_texts_with("poison")]
    batch = mill.submit([*good, *bad], chunk_texts=30)
    document = mill.run(batch)
    assert document["state"] == "completed"
    assert set(mill.errors(batch)) == set(range(30, 60))


def test_what_another_process_was_answered_tells_bad_rows_from_a_bad_batch(
    mill: Mill, engine: Engine, mistral: StrictMistral, redis_url: str
) -> None:
    other, runtime = open_mill(engine, mistral, redis_url)
    mistral.faults = [refuse_texts_with("poison")]
    batch = mill.submit([*some_texts(30), *(f"poison {number}" for number in range(30))], chunk_texts=30)
    mill.work(batch, 0)
    other.work(batch, 1)
    assert mill.status(batch)["state"] == "running"
    other.fake.waiting.extend(mill.fake.waiting)
    document = other.run(batch)
    runtime.close()
    assert document["state"] == "completed"
    assert set(mill.errors(batch)) == set(range(30, 60))


def test_a_retry_of_rows_that_are_refused_again_ends_as_the_batch_did(
    mill: Mill, engine: Engine, mistral: StrictMistral, redis_url: str
) -> None:
    mistral.faults = [refuse_texts_with("poison")]
    batch = mill.submit([*some_texts(30), *(f"poison {number}" for number in range(10))])
    mill.run(batch)
    later, runtime = open_mill(engine, mistral, redis_url)  # a process that knows nothing of the first answers
    retry(engine, later.sender, batch)
    document = later.run(batch)
    runtime.close()
    assert document["state"] == "completed"
    assert (document["rows"]["labelled"], document["rows"]["failed"]) == (30, 10)


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "credentials_refused"), (403, "credentials_refused"), (404, "remote_failed"), (402, "billing_required")],
)
def test_a_fault_that_will_not_pass_stops_the_batch_at_once(mill: Mill, status: int, code: str) -> None:
    mill.mistral.faults = [
        lambda texts, body: web.Response(status=status, body=f'{{"message":"no: {KEY} \\u0000"}}'.encode())
    ]
    batch = mill.submit(some_texts(400))
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
    texts = some_texts(20)
    batch = mill.submit(texts)
    document = mill.run(batch)
    assert document["state"] == "completed"
    assert_all_labelled(mill, batch, texts)


@pytest.mark.parametrize("malformed", MALFORMED, ids=lambda make: make.__name__.strip("_"))
def test_a_text_that_is_always_answered_badly_fails_alone(
    mill: Mill, monkeypatch: pytest.MonkeyPatch, malformed: Callable[[list[str]], web.Response]
) -> None:
    monkeypatch.setattr(retry_policy, "MALFORMED_BASE_S", 0.005)
    known = mill.submit(["a first text, so that the labels are known"])
    mill.run(known)
    texts = some_texts(20)
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
    texts = some_texts(10)
    batch = mill.submit(texts)
    assert mill.run(batch)["rows"]["labelled"] == 10
    assert_all_labelled(mill, batch, texts)


def test_labels_are_not_learnt_from_a_malformed_answer(mill: Mill) -> None:
    mill.mistral.faults = [first_times(1, _too_few), first_times(1, _null_scores)]
    texts = some_texts(10)
    batch = mill.submit(texts)
    assert mill.run(batch)["state"] == "completed"
    assert_all_labelled(mill, batch, texts)


@pytest.mark.parametrize("options", [{"multi": ("tipo",)}, {"thresholds": {"tipo": 0.5}}])
def test_a_target_that_the_first_answer_does_not_have_stops_the_batch(mill: Mill, options: dict[str, Any]) -> None:
    batch = mill.submit(some_texts(200), **options)
    document = mill.run(batch)
    assert (document["state"], document["error_code"]) == ("failed", "invalid_input")
    assert "'tipo'; the model's targets are" in document["error"]
