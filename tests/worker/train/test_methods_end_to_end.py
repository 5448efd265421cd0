"""Trainings by vectors and by prompt in this process, against a strict stand-in for Mistral that counts its bills."""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from aiohttp import web
from asked import approve, cancel, submit_batch, submit_evaluation
from school import SCHEMA, School, made_up_row, open_school, parts_of_page
from sqlalchemy import delete, select, update
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral, completed, label_of, refuse_texts_with
from workshop import Killed

from labelmill.cli.summaries import summary_of
from labelmill.contracts.chats import chat_as_text
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.messages import CLASSIFY, TRAIN, ChunkMessage
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, ChunkRow, DatasetRow, LedgerRow, ModelRow, TrainingRow
from labelmill.core.money.prices import PRICES_AS_OF, PriceList
from labelmill.core.money.tokenizers import EstimatedTokens
from labelmill.core.storage.local import LocalStorage
from labelmill.report.parts import Note
from labelmill.report.training import parts_of
from labelmill.services import models as registry
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.documents import status_document
from labelmill.services.results.reading import read_results
from labelmill.services.trainings import TrainRequest
from labelmill_ops.quote.quoting import QuoteContext
from labelmill_ops.quote.tally import AccountLimits
from labelmill_ops.quote.trainings import quote_training
from labelmill_worker.store.stalled import return_expired_chunks


@pytest.fixture
def school(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[School]:
    made = open_school(engine, mistral, redis_url, tmp_path)
    yield made
    made.close()


def test_a_head_is_trained_on_vectors_and_classifies(school: School) -> None:
    training = school.run(school.train())
    assert (training["state"], training["model"], training["method"]) == ("succeeded", "m@1", "embedding")
    assert set(school.mistral.billed.values()) == {1}
    assert sum(school.mistral.billed.values()) == 160
    paid = {"amount": pytest.approx(160 * 7 * 0.1 / 1e6), "currency": "USD", "tokens": 160 * 7}
    assert training["cost"] == paid | {"estimated": False, "prices_as_of": PRICES_AS_OF}
    assert training["details"]["targets"]["intent"]["validation"]["accuracy"] == 1.0
    texts = [made_up_row(n)["text"] for n in range(2000, 2050)]
    batch = school.run(school.classify(texts))
    assert batch["rows"]["labelled"] == 50
    assert batch["tokens"] == 350
    assert school.labels(batch["id"]) == [label_of(text) for text in texts]
    assert ["alpha" in found for found in school.labels(batch["id"], "tags")] == [label_of(t) == "alpha" for t in texts]
    assert set(school.version().thresholds or {}) == {"tags"}


@pytest.mark.parametrize("retrains", [False, True])
def test_phases_are_told_in_the_order_in_which_they_happen(
    school: School, monkeypatch: pytest.MonkeyPatch, *, retrains: bool
) -> None:
    from labelmill_worker.train import embedding  # noqa: PLC0415

    if retrains:
        school.run(school.train())  # so that nothing is left to embed
    told: list[tuple[str, int | None, int | None]] = []

    def look() -> None:
        progress = school.status(training_id)["progress"]
        if progress is not None and (now := (progress["phase"], progress["done"], progress["total"])) not in told[-1:]:
            told.append(now)

    original = embedding.fit_head

    def fit_head(*arguments: Any, **options: Any) -> Any:
        look()
        return original(*arguments, **options)

    def unembedded(*arguments: Any, original: Any = embedding.unembedded, **options: Any) -> Any:
        look()
        yield from original(*arguments, **options)

    monkeypatch.setattr(embedding, "fit_head", fit_head)
    monkeypatch.setattr(embedding, "unembedded", unembedded)
    training_id = school.train()
    while school.status(training_id)["state"] != "succeeded":
        look()
        school.step()
    before = [("queued", None, None), ("validating", None, None), ("running", None, None)]
    embeds = [] if retrains else [("submitting", 0, None), ("embedding", 0, 160), ("embedding", 160, 160)]
    assert told == [*before, *embeds, ("fitting", None, None)]


def test_the_same_texts_are_paid_for_once_whatever_trains_on_them(school: School) -> None:
    school.run(school.train())
    paid, asked = sum(school.mistral.billed.values()), school.mistral.requests
    second = school.run(school.train(yes=False))  # nothing to pay, so nobody has to allow it
    assert (second["state"], second["model"], second["estimate"]["amount"]) == ("succeeded", "m@2", 0.0)
    assert (sum(school.mistral.billed.values()), school.mistral.requests) == (paid, asked)
    school.dataset("other", SCHEMA, train=[made_up_row(n) for n in range(100, 140)], validation=[])
    school.run(school.train(dataset="other"))
    assert set(school.mistral.billed.values()) == {1}
    assert sum(school.mistral.billed.values()) == paid + 20


def test_a_worker_killed_at_any_moment_pays_for_nothing_twice(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    from labelmill_worker.train import embedding, inner_batch  # noqa: PLC0415

    training_id = school.train()
    (school.folder / "models" / f"{training_id}.dead.part").mkdir(parents=True)  # what a kill in the middle leaves
    (school.folder / "models" / f"{training_id}.zip.1.part").touch()
    kills = [
        (inner_batch, "open_inner_batch"),
        (inner_batch, "dispatch_batch"),
        (embedding, "fit_head"),
        (embedding, "succeed"),
    ]
    for module, name in kills:
        original = getattr(module, name)

        def die(*arguments: Any, original: Any = original, **options: Any) -> Any:
            original(*arguments, **options)
            raise Killed

        monkeypatch.setattr(module, name, die)
        with pytest.raises(Killed):
            school.run(training_id)
        monkeypatch.setattr(module, name, original)
        with writing(school.engine) as connection:
            connection.execute(update(TrainingRow).values(lease_until=0.0))
            connection.execute(update(ChunkRow).values(sent_at=0.0))
        school.queue.waiting.clear()
        inner = school.status(training_id)["batch"]
        if inner:
            inner_batch.dispatch_batch(school.engine, school.sender, inner, lost_after_s=1)
    document = school.run(training_id)
    assert [path.name for path in (school.folder / "models").iterdir()] == [f"{training_id}.zip"]
    assert document["state"] == "succeeded"
    assert set(school.mistral.billed.values()) == {1}
    with reading(school.engine) as connection:
        assert len(connection.execute(select(ModelRow.no).where(ModelRow.name == "m")).all()) == 1
        assert len(connection.execute(select(BatchRow.no)).all()) <= 2


def test_an_attempt_whose_files_the_next_one_cleared_away_leaves_the_training_alone(
    school: School, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labelmill_worker.train import embedding  # noqa: PLC0415

    training_id = school.train()
    original = embedding.fit_head

    def taken_over(*arguments: Any, **options: Any) -> Any:
        with writing(school.engine) as connection:
            connection.execute(update(TrainingRow).values(lease_token="next", lease_until=0.0))
        for left in (school.folder / "models").iterdir():
            shutil.rmtree(left)
        monkeypatch.setattr(embedding, "fit_head", original)
        return original(*arguments, **options)

    monkeypatch.setattr(embedding, "fit_head", taken_over)
    assert school.run(training_id)["state"] == "succeeded"  # by the next attempt
    assert embedding.fit_head is original


def test_a_chunk_whose_worker_died_embeds_only_what_has_no_vector(school: School) -> None:
    training_id = school.train()
    while not school.status(training_id)["batch"] or not any(task == CLASSIFY for task, _ in school.queue.waiting):
        school.step()
    school.run(training_id)
    batch_id = school.status(training_id)["batch"]
    with writing(school.engine) as connection:  # as if the worker had died before it could close the chunk
        connection.execute(update(ChunkRow).values(state="claimed", lease_token="dead", lease_until=0.0))
        connection.execute(update(BatchRow).values(state="running"))
    return_expired_chunks(school.engine)
    school.queue.waiting.append((CLASSIFY, ChunkMessage(job_id=batch_id, chunk=0)))
    before = school.mistral.requests
    school.step()
    assert school.mistral.requests == before
    rows = school.status(batch_id)["rows"]
    assert (rows["labelled"], rows["pending"]) == (160, 0)


def test_a_head_that_was_tampered_with_fails_the_batch_in_one_sentence(school: School) -> None:
    school.run(school.train())
    path = school.folder / str((school.version().recipe or {})["file"])
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    path.write_bytes(bytes(data))
    before = school.mistral.requests
    batch = school.run(school.classify(["a", "b"]))
    assert batch["state"] == "failed"
    assert "the file of model m@1 is not the one that was trained" in batch["error"]
    assert school.mistral.requests == before


@pytest.mark.parametrize(
    ("options", "state"),
    [
        ({"yes": False}, "awaiting_approval"),
        ({"yes": True}, "succeeded"),
        ({"max_cost": 1.0}, "succeeded"),
        ({"max_cost": 1e-9}, "awaiting_approval"),
    ],
)
def test_vectors_are_not_paid_for_beyond_what_was_allowed(school: School, options: dict[str, Any], state: str) -> None:
    training = school.run(school.train(**options))
    assert training["state"] == state
    assert training["estimate"]["amount"] > 0
    assert bool(school.mistral.requests) == (state == "succeeded")
    if state == "awaiting_approval":
        approve(school.engine, school.sender, training["id"])
        assert school.run(training["id"])["state"] == "succeeded"


def test_a_text_that_cannot_be_embedded_is_left_out_and_named(school: School) -> None:
    rows = [made_up_row(n) for n in range(60)]
    rows[3]["text"] = "too long a text"
    school.dataset("bad", SCHEMA, train=rows, validation=[])
    school.mistral.faults.append(refuse_texts_with("too long", 400))
    training = school.run(school.train(dataset="bad"))
    assert training["state"] == "succeeded"
    assert training["details"]["targets"]["intent"]["rows"] == 59
    assert "1 text could not be embedded and is left out" in school.history(training["id"])
    left_out = training["details"]["left_out"]
    assert left_out["rows"] == 1
    assert left_out["reason"] in school.history(training["id"])
    told = summary_of(training).facts
    assert ("left out", f"1 row of the dataset: {left_out['reason']}") in told
    with reading(school.engine) as connection:
        notes = [part.text for part in parts_of(connection, training) if isinstance(part, Note)]
    assert any(left_out["reason"] in note for note in notes)

    # it is neither sent nor weighed again
    context = QuoteContext(
        ServiceContext(school.engine, school.sender, storage=LocalStorage(school.folder)),
        EstimatedTokens(),
        AccountLimits(),
        100,
    )
    quote = quote_training(context, TrainRequest.of("m", "bad"))
    assert (quote["rows"], quote["texts"], quote["refused"]) == (60, 0, 1)
    asked = school.mistral.requests
    again = school.run(school.train(dataset="bad", max_cost=0.0))
    assert (again["state"], again["estimate"]["texts"]) == ("succeeded", 0)
    assert school.mistral.requests == asked
    assert again["details"]["left_out"] == left_out


def test_a_training_that_leaves_no_row_out_says_so(school: School) -> None:
    for options in ({}, {"method": "prompt"}):
        training = school.run(school.train(**options))
        assert training["details"]["left_out"] == {"rows": 0, "reason": None}
        assert "left out" not in dict(summary_of(training).facts)
        assert not [part for part in parts_of_page(school, training["id"]) if "took no part" in str(part)]


def test_a_text_without_a_vector_is_named_whatever_was_wrong(school: School) -> None:
    def give_none(texts: list[str], body: dict[str, Any]) -> web.Response | None:
        del body
        return web.json_response({"data": []}) if "text 3 xxx" in texts else None

    school.mistral.faults.append(give_none)
    training = school.run(school.train())
    left_out = training["details"]["left_out"]
    assert (training["state"], left_out["rows"]) == ("succeeded", 1)
    assert f"1 text could not be embedded and is left out: {left_out['reason']}" in school.history(training["id"])


def test_a_refused_key_fails_the_training_as_such(school: School) -> None:
    school.mistral.faults.append(lambda texts, body: web.Response(status=401, body=b"{}"))
    training = school.run(school.train())
    assert (training["state"], training["error_code"]) == ("failed", "credentials_refused")


def test_a_cancelled_training_cancels_its_batch_and_keeps_the_vectors(school: School) -> None:
    training_id = school.train()
    while not school.status(training_id)["batch"]:
        school.step()
    cancel(school.engine, school.sender, training_id)
    school.queue.waiting = deque(one for one in school.queue.waiting if one[0] == TRAIN)
    assert school.run(training_id)["state"] == "cancelled"
    assert school.status(school.status(training_id)["batch"])["state"] == "cancelled"


def test_a_prompt_is_made_by_one_short_request_and_answers_one_text_each(school: School) -> None:
    training = school.run(school.train(method="prompt", yes=False, shots=2, descriptions={"alpha": "the first"}))
    assert (training["state"], school.mistral.requests) == ("succeeded", 1)  # whether log-probabilities are told
    assert "tells no log-probabilities" in school.history(training["id"])
    recipe = school.version().recipe or {}
    assert "- alpha: the first" in recipe["system"]
    assert len(recipe["examples"]) >= 8
    texts = [made_up_row(n)["text"] for n in range(2000, 2030)]
    batch = school.run(school.classify(texts))
    assert (batch["requests"], batch["tokens"]) == (30, 30 * 55)
    assert school.labels(batch["id"]) == [label_of(text) for text in texts]
    assert set(school.mistral.billed.values()) == {1}


def test_a_prompt_of_several_texts_saves_requests_and_answers_each(school: School) -> None:
    school.run(school.train(method="prompt", shots=1, texts_per_prompt=8))
    texts = [made_up_row(n)["text"] for n in range(2000, 2030)]
    batch = school.run(school.classify(texts))
    assert batch["requests"] == 4
    assert school.labels(batch["id"]) == [label_of(text) for text in texts]
    assert ["alpha" in found for found in school.labels(batch["id"], "tags")] == [label_of(t) == "alpha" for t in texts]
    assert set(school.mistral.billed.values()) == {1}


@pytest.mark.parametrize("given", [0, 65])
def test_the_number_of_texts_in_a_prompt_is_bounded(school: School, given: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        school.train(method="prompt", texts_per_prompt=given)
    assert refused.value.field == "texts_per_prompt"


def test_an_answer_off_the_schema_is_asked_for_again_and_then_is_the_rows_own_problem(school: School) -> None:
    school.run(school.train(method="prompt"))

    def off(texts: list[str], body: dict[str, Any]) -> Any:
        return completed(body, '{"intent":"nonsense","tags":[]}') if texts == ["bad"] else None

    school.mistral.faults.append(off)
    batch = school.run(school.classify(["good", "bad", "fine"]))
    assert (batch["rows"]["labelled"], batch["rows"]["failed"]) == (2, 1)
    (failed,) = [row for row in read_results(school.engine, batch["id"]) if row["error"]]
    assert (failed["text"], failed["error"]["code"]) == ("bad", "malformed_answer")


def test_the_nearest_examples_are_chosen_for_each_text(school: School) -> None:
    training = school.run(school.train(method="prompt", shots=1, shot_selection="nearest"))
    assert training["state"] == "succeeded"
    assert training["cost"]["amount"] > 0
    text = made_up_row(2001)["text"]
    batch = school.run(school.classify([text]))
    assert school.labels(batch["id"]) == [label_of(text)]
    shown = school.mistral.bodies[-1]["messages"][1:-1]
    assert json.loads(shown[-1]["content"])["intent"] == label_of(text)


def test_every_request_for_the_nearest_examples_is_counted_and_its_tokens_paid_once(school: School) -> None:
    school.run(school.train(method="prompt", shots=1, shot_selection="nearest"))
    text = made_up_row(2001)["text"]
    plain = school.run(school.classify([text]))
    sent = school.mistral.requests
    failures = iter([web.Response(status=503)])
    school.mistral.faults.append(lambda texts, body: next(failures, None) if "messages" in body else None)
    batch = school.run(school.classify([text]))
    assert batch["requests"] == school.mistral.requests - sent == 3  # a vector, a chat that failed, a chat
    assert plain["requests"] == 2
    assert batch["tokens"] == plain["tokens"]


def test_each_model_of_a_prompt_with_the_nearest_examples_keeps_to_its_own_limit(
    engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, texts = "ministral-8b-2512", [made_up_row(n)["text"] for n in range(2000, 2006)]
    monkeypatch.setenv("LABELMILL_MODEL_LIMITS", json.dumps({chat: {"requests_per_minute": 600}}))
    school = open_school(engine, mistral, redis_url, tmp_path)
    try:
        school.run(school.train(method="prompt", shots=1, shot_selection="nearest", base_model=chat))
        chats: list[float] = []
        refusals = iter([web.Response(status=429, headers={"Retry-After": "1"})])

        def watch(texts: list[str], body: dict[str, Any]) -> web.Response | None:
            if "messages" in body:
                chats.append(time.monotonic())
                return None
            return next(refusals, None)

        mistral.faults.append(watch)
        began = time.monotonic()
        batch = school.run(school.classify(texts))
        assert batch["rows"]["labelled"] == len(texts)
        # a busy machine brings two together that were sent apart; none may come before its time
        assert all(at - began > 0.1 * number for number, at in enumerate(chats)), "a tenth of a second each"
        with redis.Redis.from_url(redis_url) as client:
            slowed = {key.split(b":model:")[1] for key in client.keys("labelmill:limit:*:adaptation")}
        assert slowed == {b"mistral-embed:adaptation"}, "the model that answered 429, and not the other"
    finally:
        school.close()


def test_what_a_batch_costs_is_in_the_ledger_by_the_tokens_that_were_reported(school: School) -> None:
    school.run(school.train())
    batch = school.run(school.classify(["one text", "another text", "one text"]))
    assert batch["tokens"] > 0
    expected = {"amount": round(batch["tokens"] * 0.1 / 1e6, 8), "currency": "USD", "estimated": False}
    assert batch["cost"] == expected | {"prices_as_of": PRICES_AS_OF, "tokens": batch["tokens"]}


def test_a_batch_from_before_the_ledger_has_its_cost_by_the_price_list(school: School) -> None:
    school.run(school.train())
    batch = school.run(school.classify(["one text", "another text", "one text"]))
    with writing(school.engine) as connection:
        connection.execute(delete(LedgerRow))
    with reading(school.engine) as connection:
        cost = status_document(connection, batch["id"], PriceList({"mistral-embed": (7.0, 0.0)}))["cost"]
    assert cost == {
        "amount": round(batch["tokens"] * 7 / 1e6, 8),
        "currency": "USD",
        "estimated": True,
        "prices_as_of": "LABELMILL_PRICES",
    }


def test_chats_are_embedded_prompted_and_classified_as_their_conversations(school: School) -> None:
    def chat(number: int) -> dict[str, Any]:
        row = made_up_row(number)
        return {"messages": [{"role": "user", "content": row["text"]}], "labels": row["labels"]}

    school.dataset("chats", SCHEMA, train=[chat(n) for n in range(80)], validation=[chat(n) for n in range(1000, 1020)])
    assert school.run(school.train(dataset="chats"))["state"] == "succeeded"
    asked = chat_as_text(chat(3000)["messages"])
    source = school.folder / "chats.jsonl"
    source.write_text(json.dumps({"messages": chat(3000)["messages"]}) + "\n")
    batch = school.run(submit_batch(school.engine, school.sender, source=str(source), model="m", text="messages"))
    (row,) = list(read_results(school.engine, batch["id"]))
    assert row["text"] == asked
    assert school.mistral.bodies[-1]["input"] == [f"user: {made_up_row(3000)['text']}"]


def test_a_registered_model_of_chats_is_asked_at_the_endpoint_of_chats(school: School) -> None:
    with writing(school.engine) as connection:
        row = registry.register(connection, "old", "ft:classifier:before", chats=True)
        assert registry.register(connection, "old", "ft:classifier:before", chats=True).no == row.no
    batch = school.run(school.classify(["one text", "another"], "old"))
    assert (batch["model"], batch["rows"]["labelled"]) == ("old@1", 2)
    assert school.mistral.bodies[-1]["input"][0] == {"messages": [{"role": "user", "content": "one text"}]}


def mostly_unlabelled(number: int) -> dict[str, Any]:
    row = made_up_row(number)
    return row | {"labels": {"tags": [tag for tag in row["labels"]["tags"] if tag == "alpha"]}}


@pytest.mark.parametrize("options", [{}, {"method": "prompt"}, {"method": "prompt", "shots": 2}])
def test_rows_without_labels_are_learnt_answered_and_evaluated(school: School, options: dict[str, Any]) -> None:
    schema = [{"name": "tags", "labels": ["alpha"], "multi": True}]
    splits = {"train": range(120), "validation": range(1000, 1040), "test": range(3000, 3040)}
    rows = {split: [mostly_unlabelled(number) for number in numbers] for split, numbers in splits.items()}
    school.dataset("flags", schema, **rows)
    counts = {split: {"alpha": sum(bool(row["labels"]["tags"]) for row in found)} for split, found in rows.items()}
    with writing(school.engine) as connection:
        connection.execute(update(DatasetRow).where(DatasetRow.name == "flags").values(labels={"tags": counts}))
    assert school.run(school.train(dataset="flags", **options))["state"] == "succeeded"
    asked = [mostly_unlabelled(number) for number in range(2000, 2040)]
    batch = school.run(school.classify([row["text"] for row in asked]))
    assert (batch["rows"]["labelled"], batch["rows"]["abstained"]) == (40, 0)
    expected = [row["labels"]["tags"] for row in asked]
    assert expected.count([]) == 30
    assert school.labels(batch["id"], "tags") == expected
    job = school.run(submit_evaluation(school.engine, school.sender, model="m", dataset="flags"))
    assert (job["metrics"]["tags"]["rows"], job["metrics"]["tags"]["accuracy"]) == (40, 1.0)


@pytest.mark.parametrize("method", ["embedding", "factory", "prompt"])
def test_a_target_with_a_single_label_is_not_trained(school: School, method: str) -> None:
    schema = [SCHEMA[0], {"name": "lonely", "labels": ["only"], "multi": True}]
    school.dataset("lonely", schema, train=[{"text": "t", "labels": {"intent": "alpha", "lonely": ["only"]}}])
    with pytest.raises(InvalidInput, match="every row of dataset lonely@1 has the same label for 'lonely', 'only'"):
        school.train(dataset="lonely", method=method)


def test_the_factory_is_not_asked_for_a_target_with_one_label(school: School) -> None:
    rows = [mostly_unlabelled(number) for number in range(20)]
    school.dataset("flags", [{"name": "tags", "labels": ["alpha"], "multi": True}], train=rows)
    with writing(school.engine) as connection:
        counts = {"tags": {"train": {"alpha": 5}}}
        connection.execute(update(DatasetRow).where(DatasetRow.name == "flags").values(labels=counts))
    with pytest.raises(InvalidInput, match="'tags' has one label, 'alpha', and a classifier that Mistral fine-tunes"):
        school.train(dataset="flags", method="factory")
