"""One chunk after the other in this process, against a strict stand-in for Mistral: every row is answered once, and
billed once."""

from __future__ import annotations

import gc
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
from mill import DEADLINE_S, Mill, assert_all_labelled, assert_billed_once, some_texts, until
from sqlalchemy import select, text, update
from strict_mistral import label_of, ok, result_of

from labelmill.core.database import reading, writing
from labelmill.core.database.tables import ChunkInputRow, ChunkRepeatsRow, ChunkRow, PredictionRow
from labelmill.services.results.arrow_batches import arrow_batches
from labelmill.services.results.reading import (
    Only,
    facts_of_batch,
    read_result_chunks,
    read_result_lines,
    read_results,
)
from labelmill.services.results.scores import ALL, NONE, ScoreChoice
from labelmill.services.results.tables import ResultTable
from labelmill_worker.store.chunks import Claim
from labelmill_worker.store.stalled import complete_finished_batches, runnable_batches


def test_every_row_is_answered_once_and_billed_once(mill: Mill) -> None:
    texts = some_texts(250)
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
    assert_all_labelled(mill, batch, texts)
    assert_billed_once(mill, texts)
    assert status["requests"] == mill.mistral.requests == 25


def test_a_chunk_that_has_ended_leaves_memory_without_the_garbage_collector(mill: Mill) -> None:
    batch_id = mill.submit(some_texts(40), chunk_texts=20)
    gc.collect()
    gc.disable()
    try:
        mill.run(batch_id)
        until(lambda: not [one for one in gc.get_objects() if isinstance(one, Claim)])
    finally:
        gc.enable()


def test_duplicates_get_their_own_prediction_and_are_billed_once(mill: Mill) -> None:
    texts = [*some_texts(30), *some_texts(30), *some_texts(45), "", ""]
    batch = mill.submit(texts, chunk_texts=20)
    status = mill.run(batch)
    assert status["state"] == "completed"
    assert (status["rows"]["labelled"], status["rows"]["failed"], status["duplicates"]) == (105, 2, 61)
    assert mill.predictions(batch) == {row: label_of(content) for row, content in enumerate(texts[:105])}
    assert mill.errors(batch) == {105: "empty_text", 106: "empty_text"}
    assert_billed_once(mill, texts[:105])


def test_a_message_delivered_twice_is_billed_once(mill: Mill) -> None:
    texts = some_texts(40)
    batch = mill.submit(texts)
    mill.mistral.latency_s = 0.05
    both = [threading.Thread(target=mill.work, args=(batch,)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(DEADLINE_S)
    mill.work(batch)
    assert_billed_once(mill, texts)
    assert mill.status(batch)["state"] == "completed"


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
    complete_finished_batches(mill.engine, runnable_batches(mill.engine))
    assert mill.status(batch)["state"] == "completed"


def test_no_more_requests_are_in_flight_than_allowed(mill: Mill) -> None:
    texts = some_texts(600)
    batch = mill.submit(texts, chunk_texts=200)
    mill.mistral.latency_s = 0.05
    mill.mistral.holds = lambda: mill.mistral.most_concurrent < 8
    workers = [threading.Thread(target=mill.work, args=(batch, chunk)) for chunk in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(DEADLINE_S)
    assert mill.mistral.most_concurrent == 8
    assert mill.run(batch)["state"] == "completed"
    assert_billed_once(mill, texts)


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
    assert_billed_once(mill, texts)
    assert [document["text"] for document in read_results(mill.engine, batch)] == texts


def test_an_abstained_row_keeps_its_scores(mill: Mill) -> None:
    texts = some_texts(8)
    batch = mill.submit(texts, thresholds={"intent": 0.9})
    document = mill.run(batch)
    assert document["rows"]["abstained"] == 8
    for row in read_results(mill.engine, batch):
        prediction = row["predictions"]["intent"]
        assert (prediction["label"], prediction["abstained"]) == (None, True)
        assert prediction["best"] == label_of(row["text"])
        assert prediction["scores"] == pytest.approx(result_of(row["text"])["intent"]["scores"])
    with reading(mill.engine) as connection:
        assert connection.scalars(select(PredictionRow.label)).all() == [None] * 8


@pytest.mark.parametrize("labels", [("alpha", "beta"), ("", 'a "quoted" one', "two\nlines", "100%d")])
def test_lines_and_tables_with_all_scores_the_best_and_none_say_the_same_of_every_row(
    mill: Mill, labels: tuple[str, ...]
) -> None:
    def answer(content: str) -> dict[str, Any]:
        kind = sum(content.encode())
        sizes = {label: 0.9 / (1 + (place + kind) % len(labels)) for place, label in enumerate(labels)}
        return {"odd %s": {"scores": sizes if kind % 5 else dict.fromkeys(labels, 0.25)}}

    mill.mistral.faults = [lambda texts, body: ok(list(map(answer, texts)))] * 100
    texts = [*some_texts(60), *some_texts(60), ""]
    batch = mill.submit(texts, chunk_texts=30, thresholds={"odd %s": 0.5})
    assert mill.run(batch)["rows"]["abstained"] > 0

    def lines(choice: ScoreChoice) -> list[dict[str, Any]]:
        blocks = read_result_lines(mill.engine, batch, scores=choice)
        return [json.loads(line) for lines in blocks for line in lines.splitlines()]

    def cells(document: dict[str, Any], table: ResultTable) -> list[Any]:
        return [
            [(label, np.float32(score)) for label, score in cell.items()] if isinstance(cell, dict) else cell
            for cell in table.cells(document)
        ]

    for choice in (ALL, NONE, ScoreChoice(1)):
        table = ResultTable(["odd %s"], (), with_scores=choice != NONE)
        batches = arrow_batches(read_result_chunks(mill.engine, batch, scores=choice), table, 50)
        rows = [list(row.values()) for each in batches for row in each.to_pylist()]
        assert rows == [cells(document, table) for document in lines(choice)]

    full, bare, best = lines(ALL), lines(NONE), lines(ScoreChoice(1))
    assert len(full) == len(bare) == len(best) == len(texts)
    for all_, none, top in zip(full, bare, best, strict=True):
        if all_["error"] is None:
            scores = all_["predictions"]["odd %s"].pop("scores")
            (only,) = top["predictions"]["odd %s"].pop("scores").items()
            assert only == max(scores.items(), key=itemgetter(1))
        assert all_ == none == top


@pytest.mark.parametrize("table", [ChunkInputRow, ChunkRepeatsRow])
def test_a_chunk_whose_input_is_unreadable_is_set_aside_and_the_rest_done(
    mill: Mill, table: type[ChunkInputRow | ChunkRepeatsRow]
) -> None:
    texts = [*some_texts(40), *some_texts(2)]
    batch = mill.submit(texts, chunk_texts=20)
    with writing(mill.engine) as connection:
        connection.execute(update(table).where(table.number == 0).values(data=b"no zstd"))
    document = mill.run(batch)
    assert sorted(mill.predictions(batch)) == list(range(20, 40))
    assert document["state"] == "completed"
    assert (document["rows"]["labelled"], document["rows"]["failed"]) == (20, 22)
    assert mill.errors(batch) == dict.fromkeys([*range(20), 40, 41], "unreadable_input")
    with reading(mill.engine) as connection:
        assert connection.scalar(select(ChunkRow.state).where(ChunkRow.number == 0)) == "failed"
        assert connection.scalar(text("SELECT count(*) FROM events WHERE chunk = 0")) == 1


@pytest.mark.parametrize(("only", "rows"), [(None, [0, 1, 2, 3]), ("failed", [2]), ("abstained", [1])])
def test_results_are_those_that_are_asked_for(mill: Mill, only: str | None, rows: list[int]) -> None:
    sure, unsure, empty = "abc", "abcd", ""
    scores = {"alpha": 0.4, "beta": 0.3, "gamma": 0.2, "delta": 0.1}
    mill.mistral.faults = [
        lambda texts, body: ok([{"intent": {"scores": scores}} if t == unsure else result_of(t) for t in texts])
    ]
    batch = mill.submit([sure, unsure, empty, "abcde"], thresholds={"intent": 0.5})
    mill.run(batch)
    found = read_results(mill.engine, batch, only=Only(only) if only else None)
    assert [document["row"] for document in found] == rows


def test_who_follows_a_new_model_into_a_table_gets_its_targets(mill: Mill) -> None:
    batch = mill.submit(some_texts(40))
    now = facts_of_batch(mill.engine, batch, follow=False, needs_targets=True)
    assert now is not None
    assert now.targets == []  # nothing was answered yet
    with ThreadPoolExecutor(1) as table:
        facts = table.submit(facts_of_batch, mill.engine, batch, follow=True, needs_targets=True)
        mill.run(batch)
        found = facts.result(10)
    assert found is not None
    assert found.targets == ["intent"]
