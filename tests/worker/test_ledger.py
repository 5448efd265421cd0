"""The ledger: what the stand-in for Mistral billed is what it says, to the last token."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from asked import submit_batch, submit_evaluation, submit_training
from mill import DEADLINE_S, Mill, some_texts, until
from sqlalchemy import func, select, update
from sqlalchemy.engine import Engine, Row
from strict_mistral import StrictMistral, first_times, refuse_texts_with
from workshop import SCHEMA, Workshop, intent_rows, open_workshop

from labelmill.contracts.usage import Usage, reported_usage
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import ChunkRow, LedgerRow
from labelmill.core.money.token_counts import count_all

TOKENS_OF_A_TEXT = 7  #: Of an embedding, as the stand-in reports them.


@pytest.fixture
def workshop(database_url: str, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    with open_workshop(database_url, mistral, redis_url, tmp_path) as made:
        yield made


def lines(engine: Engine, *columns: Any) -> list[Row[Any]]:
    with reading(engine) as connection:
        return list(connection.execute(select(*columns).order_by(LedgerRow.no)))


def sums(engine: Engine) -> tuple[int, int, int, int]:
    names = ("requests", "input_tokens", "output_tokens", "cached_tokens")
    with reading(engine) as connection:
        row = connection.execute(select(*(func.coalesce(func.sum(getattr(LedgerRow, name)), 0) for name in names)))
        requests, asked, written, cached = map(int, row.one())
    return requests, asked, written, cached


def test_a_training_an_evaluation_and_a_batch_pay_for_what_mistral_billed(workshop: Workshop) -> None:
    engine, mistral, sender = workshop.engine, workshop.mistral, workshop.sender
    workshop.dataset("small", SCHEMA, **{name: intent_rows(name, 60) for name in ("train", "validation", "test")})
    mistral.faults.append(first_times(2, lambda _: broken()))  # answers that cannot be used are billed too
    training = workshop.run(submit_training(engine, sender, name="m", dataset="small", yes=True))
    assert training["state"] == "succeeded", training
    evaluation = workshop.run(submit_evaluation(engine, sender, model="m", dataset="small"))
    source = workshop.folder / "texts.jsonl"
    source.write_text('{"text": "one text"}\n{"text": "another text"}\n{"text": "one text"}\n')
    batch = workshop.run(submit_batch(engine, sender, source=str(source), model="m"))
    billed = TOKENS_OF_A_TEXT * sum(mistral.billed.values())
    reported = [row.input_tokens for row in lines(engine, LedgerRow.input_tokens, LedgerRow.estimated) if not row[1]]
    assert sum(reported) == billed
    payers = {row.job_id for row in lines(engine, LedgerRow.job_id)}
    assert payers == {training["id"], evaluation["id"], batch["id"]}, "inner batches pay nothing themselves"
    assert {row.model for row in lines(engine, LedgerRow.model)} == {"mistral-embed"}
    assert training["cost"]["estimated"] is True, "two answers told nothing of tokens"
    assert batch["estimate"]["texts"] == 2, "one text is repeated"
    assert 0 < batch["estimate"]["amount"] < 3 * batch["cost"]["amount"]
    assert batch["cost"]["amount"] == pytest.approx(2 * TOKENS_OF_A_TEXT * 0.1 / 1e6)
    assert workshop.status(evaluation["id"])["cost"]["tokens"] == 60 * TOKENS_OF_A_TEXT
    inner = workshop.status(evaluation["batch"])
    assert inner["cost"] == workshop.status(evaluation["id"])["cost"]


def broken() -> Any:
    return web.Response(body=b'{"object": "list", "data": [', content_type="application/json")


def test_classifications_without_reported_tokens_are_counted_and_marked(mill: Mill) -> None:
    texts = some_texts(120)
    batch = mill.submit(texts, chunk_texts=50)
    assert mill.run(batch)["state"] == "completed"
    requests, asked, _, _ = sums(mill.engine)
    assert requests == mill.mistral.requests
    assert 0.9 * count_all(texts) <= asked <= 1.1 * count_all(texts)
    assert {tuple(row) for row in lines(mill.engine, LedgerRow.estimated, LedgerRow.amount)} == {(True, None)}


def test_a_refused_request_costs_nothing_and_one_that_was_never_answered_counts_as_spent(
    mill: Mill,
) -> None:
    mistral, engine = mill.mistral, mill.engine
    mill.run(mill.submit(["a first text, so that the labels are known"]))
    before = sums(engine)
    mistral.faults.append(refuse_texts_with("bad"))
    mill.run(mill.submit(["a bad text"]))
    assert sums(engine) == before
    mistral.faults[:] = [first_times(1, lambda _: shorter_than_it_says())]
    assert mill.run(mill.submit(["a good text"]))["state"] == "completed"
    requests, asked, _, _ = sums(engine)
    assert requests - before[0] == 2
    assert asked - before[1] == 2 * count_all(["a good text"])


def shorter_than_it_says() -> web.Response:
    response = web.Response(body=b"{", headers={"Content-Length": "100"})
    response.force_close()
    return response


def test_answers_that_come_after_the_lease_was_lost_are_paid_for_all_the_same(mill: Mill) -> None:
    texts = some_texts(60)
    batch = mill.submit(texts)
    is_lost = threading.Event()
    mill.mistral.holds = lambda: not is_lost.is_set()
    worker = threading.Thread(target=mill.work, args=(batch,))
    worker.start()
    until(lambda: mill.mistral.concurrent == 6)
    with writing(mill.engine) as connection:
        connection.execute(update(ChunkRow).values(lease_token="another's"))
    is_lost.set()
    worker.join(DEADLINE_S)
    assert mill.predictions(batch) == {}
    until(lambda: sums(mill.engine)[0] == 6)


def test_a_line_of_the_ledger_is_of_a_transaction_and_not_of_a_request(mill: Mill) -> None:
    mill.mistral.holds = lambda: mill.mistral.most_concurrent < 8  # then all are answered together
    mill.run(mill.submit(some_texts(80)))
    assert mill.mistral.requests == 8
    assert len(lines(mill.engine, LedgerRow.no)) < 8


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}, Usage("m", 100, 5)),
        ({"total_tokens": 9}, Usage("m", 9)),
        ({"prompt_tokens": 9, "total_tokens": 12}, Usage("m", 9, 3)),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 64}}, Usage("m", 9, 0, 9)),
        ({"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 64}}, Usage("m", 100, 0, 64)),
        ({"prompt_tokens": 9, "prompt_tokens_details": None}, Usage("m", 9)),
        ({"prompt_tokens": True, "completion_tokens": "5", "total_tokens": -1}, None),
        ({"prompt_tokens": 10**12}, None),
        ([], None),
        (None, None),
    ],
)
def test_what_a_reply_says_of_tokens_is_read_with_cached_ones_apart(usage: Any, expected: Usage | None) -> None:
    assert reported_usage({"usage": usage}, "m") == expected
