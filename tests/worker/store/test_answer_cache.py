"""`--cache`: a text that a model version has answered is not sent to it again, and each row has its own prediction."""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aiohttp import web
from asked import retry
from mill import DEADLINE_S, Mill, open_mill, some_texts, until
from sqlalchemy import event, insert, select, text, update
from sqlalchemy.engine import Connection
from strict_mistral import StrictMistral, label_of, ok, refuse_texts_with

from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.core.database import connect, reading, writing
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import AnswerIndexRow, BatchRow, ChunkInputRow, IndexedChunkRow
from labelmill.services.results.reading import read_results
from labelmill_worker.store.answer_cache import earlier_answers, index_earlier_answers


def test_the_cache_answers_what_an_earlier_batch_of_the_model_was_answered(mill: Mill) -> None:
    texts = some_texts(60)
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


def test_the_cache_holds_no_answer_of_another_model(mill: Mill) -> None:
    texts = some_texts(20)
    mill.run(mill.submit(texts))
    assert mill.run(mill.submit(texts, cache=True))["cached"] == 20
    another = "ft:classifier:another"
    mill.run(mill.submit(["a first text, so that the labels are known"], model=another))
    mill.mistral.billed.clear()
    document = mill.run(mill.submit(texts, model=another, cache=True))
    assert (document["cached"], document["rows"]["labelled"]) == (0, 20)
    assert mill.mistral.billed == Counter(texts)


def test_rows_that_are_refused_beside_cached_ones_do_not_stop_the_batch(mill: Mill) -> None:
    texts = some_texts(20)
    mill.run(mill.submit(texts))
    mill.mistral.faults = [refuse_texts_with("poison")]
    batch = mill.submit([*texts, "poison one", "poison two"], cache=True)
    document = mill.run(batch)
    assert document["state"] == "completed"
    assert set(mill.errors(batch)) == {20, 21}


def test_a_batch_that_does_not_ask_for_the_cache_asks_mistral(mill: Mill) -> None:
    texts = some_texts(20)
    mill.run(mill.submit(texts))
    mill.mistral.billed.clear()
    mill.run(mill.submit(texts))
    assert mill.mistral.billed == Counter(texts)


def _of_two_targets(texts: list[str], body: dict[str, Any]) -> web.Response:
    """Scores that no two texts share, of targets with unlike numbers of labels."""
    del body
    results = []
    for content in texts:
        intent, mood = (
            hashlib.shake_128(content.encode()).digest(5),
            hashlib.shake_128(content[::-1].encode()).digest(2),
        )
        named = {"intent": zip("abcde", intent, strict=True), "mood": zip("xy", mood, strict=True)}
        results.append(
            {target: {"scores": {label: raw / 255 for label, raw in pairs}} for target, pairs in named.items()}
        )
    return ok(results)


def test_every_row_gets_its_own_scores_of_every_target_in_whatever_order_texts_come_back(mill: Mill) -> None:
    mill.mistral.faults = [_of_two_targets]
    texts = some_texts(300)
    first = mill.submit(texts, chunk_texts=70)
    mill.run(first)
    told = {row["text"]: row["predictions"] for row in read_results(mill.engine, first)}
    requests = mill.mistral.requests
    again = texts + some_texts(330)[300:]
    random.Random(7).shuffle(again)
    second = mill.submit(again, chunk_texts=110, cache=True)
    assert mill.run(second)["cached"] == 300
    assert mill.mistral.requests - requests <= 3 * 3  # thirty new texts, spread over three chunks
    rows = list(read_results(mill.engine, second))
    assert [row["text"] for row in rows] == again
    assert {row["text"]: row["predictions"] for row in rows if row["text"] in told} == told


def test_an_earlier_answer_is_weighed_against_the_thresholds_of_the_new_batch(mill: Mill) -> None:
    texts = some_texts(12)
    assert mill.run(mill.submit(texts))["rows"]["labelled"] == 12
    mill.mistral.billed.clear()
    strict = mill.run(mill.submit(texts, cache=True, thresholds={"intent": 0.9}))
    assert (strict["cached"], strict["rows"]["abstained"]) == (12, 12)
    assert mill.run(mill.submit(texts, cache=True))["rows"]["labelled"] == 12
    assert not mill.mistral.billed


def test_rows_that_were_answered_by_a_retry_are_known_afterwards(mill: Mill) -> None:
    texts = some_texts(20)
    mill.mistral.faults = [refuse_texts_with("00007")]
    first = mill.submit(texts)
    assert mill.run(first)["rows"]["failed"] == 1
    assert mill.run(mill.submit(texts[:5], cache=True))["cached"] == 5  # the first batch is indexed now
    mill.mistral.faults = []
    retry(mill.engine, mill.sender, first)
    assert mill.run(first)["rows"]["labelled"] == 20
    mill.mistral.billed.clear()
    assert mill.run(mill.submit(texts, cache=True))["cached"] == 20
    assert not mill.mistral.billed


def test_what_a_batch_was_answered_before_it_was_stopped_is_known(mill: Mill) -> None:
    texts = some_texts(40)
    mill.run(mill.submit(["a first text, so that the labels are known"]))
    mill.mistral.billed.clear()
    mill.mistral.faults = [lambda asked, body: web.Response(status=401) if texts[39] in asked else None]
    assert mill.run(mill.submit(texts))["state"] == "failed"
    mill.mistral.faults = []
    answered = set(mill.mistral.billed)
    assert answered
    document = mill.run(mill.submit(texts, cache=True))
    assert (document["cached"], document["rows"]["labelled"]) == (len(answered), 40)
    assert mill.mistral.billed == Counter(texts)


def test_a_chunk_whose_input_was_damaged_since_blocks_no_other(mill: Mill) -> None:
    texts = some_texts(40)
    mill.run(mill.submit(texts, chunk_texts=20))
    with writing(mill.engine) as connection:
        connection.execute(update(ChunkInputRow).where(ChunkInputRow.number == 0).values(data=b"no zstd"))
    mill.mistral.billed.clear()
    assert mill.run(mill.submit(texts, cache=True))["cached"] == 20
    assert mill.mistral.billed == Counter(texts[:20])


def test_what_the_cache_answered_is_not_indexed_again(mill: Mill) -> None:
    texts = some_texts(40)
    mill.run(mill.submit(texts, chunk_texts=20))
    for _ in range(2):
        mill.run(mill.submit(texts, chunk_texts=20, cache=True))
    with reading(mill.engine) as connection:
        indexed = connection.scalars(select(IndexedChunkRow.batch_no).distinct()).all()
        assert indexed == [connection.scalar(select(BatchRow.no).order_by(BatchRow.no).limit(1))]


@pytest.mark.postgres
def test_workers_that_index_the_same_texts_do_not_wait_for_each_other_crosswise(
    postgres_url: str, mistral: StrictMistral, redis_url: str
) -> None:
    engine = connect(postgres_url)
    mill, runtime = open_mill(engine, mistral, redis_url)
    texts = some_texts(401)  # a chunk
    for order in (texts, texts[::-1]):
        mill.run(mill.submit(order))
    with reading(engine) as connection:
        model = connection.scalar(select(BatchRow.model_no).limit(1))
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    assert model is not None
    end = time.monotonic() + DEADLINE_S
    with ThreadPoolExecutor(2) as workers:
        with writing(engine) as connection:  # both come as far as the text in the middle, and go on from there at once
            middle = {"model_no": model, "digest": _digest(texts[200]), "batch_no": 1, "row": 200}
            connection.execute(insert(AnswerIndexRow).values(middle))
            done = [workers.submit(index_earlier_answers, engine, model, exclude=0, until=end) for _ in range(2)]
            until(lambda: connection.scalar(waiting) == 2)
        assert [one.result(DEADLINE_S) for one in done] == [True, True]
    with reading(engine) as connection:
        assert connection.scalar(text("SELECT count(*) FROM answer_index")) == 401
        assert connection.scalar(text("SELECT count(*) FROM indexed_chunks")) == 2
    runtime.close()
    engine.dispose()


def _digest(content: str) -> bytes:
    return hashlib.blake2b(content.encode(), digest_size=16).digest()


_SCHEMA = LabelSchema((Target("intent", ("a", "b")),))
_KNOWN = 20_000


@pytest.mark.postgres
def test_postgres_without_statistics_reads_the_rows_that_were_asked_for_and_no_others(postgres_url: str) -> None:
    engine = connect(postgres_url, max_connections=1)
    texts = [f"text {row}" for row in range(_KNOWN)]
    digests = [_digest(content) for content in texts]
    predictions = ((1, row, 0, "a", 0.5, row.to_bytes(8, "little")) for row in range(_KNOWN))
    with writing(engine) as connection:
        columns = ("batch_no", "row", "target", "label", "score", "scores")
        dialect_of(connection).bulk_insert(connection, "prediction_rows", columns, predictions)
        rows = ((1, digest, 1, row) for row, digest in enumerate(digests))
        dialect_of(connection).bulk_insert(
            connection, AnswerIndexRow.__tablename__, ("model_no", "digest", "batch_no", "row"), rows
        )
    counts: list[int] = []

    def count(connection: Connection) -> None:
        counted = "coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)"
        tables = "('answer_index', 'prediction_rows')"
        found = connection.exec_driver_sql(
            f"SELECT sum({counted}) FROM pg_stat_xact_user_tables WHERE relname IN {tables}"
        ).scalar_one()
        counts.append(int(found))

    event.listen(engine, "begin", count)
    event.listen(engine, "commit", count)
    found = earlier_answers(engine, 1, _SCHEMA, [*texts[5_000:5_500], "a text that nobody knows"])
    event.remove(engine, "begin", count)
    event.remove(engine, "commit", count)
    assert found.indices.tolist() == list(range(500))
    assert [scores.tobytes() for scores in found.scores[0]] == [
        row.to_bytes(8, "little") for row in range(5_000, 5_500)
    ]
    assert counts[-1] - counts[0] == 1_000
    engine.dispose()
