"""Trainings by vectors and by prompt in this process, against a strict stand-in for Mistral that counts its bills."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from sqlalchemy import insert, select, update
from sqlalchemy.engine import Engine
from strict_mistral import KEY, LABELS, StrictMistral, completed, label_of, refuse_texts_with

from labelmill import actions, registry
from labelmill.classify_submission import submit_batch
from labelmill.contracts.chats import chat_as_text
from labelmill.contracts.database import reading, writing
from labelmill.contracts.messages import CLASSIFY, TRAIN, ChunkMessage, JobMessage
from labelmill.contracts.prices import PRICES_AS_OF, PriceList
from labelmill.contracts.queue import MessageSender
from labelmill.contracts.settings import Settings
from labelmill.contracts.tables import BatchRow, ChunkRow, DatasetRow, EventRow, ModelRow, TrainingRow
from labelmill.jobs import status_document
from labelmill.results import read_results
from labelmill.train_submission import approve, submit_training
from labelmill_worker.classify.engine import ClassifyEngine
from labelmill_worker.classify.work import work_on_chunk
from labelmill_worker.mistral.port import ControlPlane
from labelmill_worker.store.owed import return_expired_chunks
from labelmill_worker.train.look import TrainingWatch

DEADLINE_S = 60.0
SCHEMA = [
    {"name": "intent", "labels": sorted(LABELS), "multi": False},
    {"name": "tags", "labels": ["alpha", "even", "odd"], "multi": True},
]


class Killed(BaseException):
    """The worker dies here."""


class Queue:
    def __init__(self) -> None:
        self.waiting: deque[tuple[str, JobMessage]] = deque()

    def send(
        self, task: str, messages: Sequence[JobMessage], *, priority: str = "normal", countdown_s: float | None = None
    ) -> None:
        self.waiting += [(task, message) for message in messages]


def made_up_row(number: int) -> dict[str, Any]:
    text = f"text {number} {'x' * (number % 4)}"
    tags = ["even" if number % 2 == 0 else "odd", *(["alpha"] if label_of(text) == "alpha" else [])]
    return {"text": text, "labels": {"intent": label_of(text), "tags": tags}}


class Mill:
    """Workers without Celery: the messages of trainings and of chunks are carried out one after the other."""

    def __init__(self, engine: Engine, mistral: StrictMistral, redis_url: str, folder: Path) -> None:
        self.engine, self.mistral, self.folder = engine, mistral, folder
        self.queue = Queue()
        self.sender = cast("MessageSender", self.queue)
        self.settings = Settings(broker_url=redis_url, mistral_url=mistral.url, MISTRAL_API_KEY=KEY, lease_s=15,
                                 texts_per_request=10, max_in_flight=4, data_dir=str(folder), poll_s=0.1)  # fmt: skip
        self.shared = ClassifyEngine.from_settings(self.settings, engine)

    def dataset(self, rows: list[dict[str, Any]], validation: list[dict[str, Any]], name: str = "small") -> None:
        files = {}
        for split, part in (("train", rows), ("validation", validation)):
            path = self.folder / f"{name}-{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in part))
            files[split] = str(path)
        number = len(list(self.folder.glob("*-train.jsonl")))
        with writing(self.engine) as connection:
            connection.execute(
                insert(DatasetRow).values(
                    id=f"prep_000000000{number}", state="ready", name=name, version=1, spec={}, label_schema=SCHEMA,
                    splits={"train": len(rows), "validation": len(validation)}, fingerprint=name, files=files,
                )
            )  # fmt: skip

    def train(self, **options: Any) -> str:
        given = {"name": "m", "dataset": "small", "yes": True} | options
        return submit_training(self.engine, self.sender, **given)

    def classify(self, texts: Sequence[str], model: str = "m", **options: Any) -> str:
        source = self.folder / "texts.jsonl"
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return submit_batch(self.engine, self.sender, source=str(source), model=model, **options)

    def run(self, job_id: str) -> dict[str, Any]:
        """Carry out messages until the job has ended or waits for a person."""
        end = time.monotonic() + DEADLINE_S
        while (document := self.status(job_id))["state"] in ("queued", "validating", "running", "submitting"):
            assert time.monotonic() < end, document
            self.step()
        return document

    def step(self) -> None:
        if not self.queue.waiting:  # what a sweeper would do
            with reading(self.engine) as connection:
                open_trainings = select(TrainingRow.id).where(TrainingRow.state.in_(("validating", "running")))
                self.queue.waiting += [(TRAIN, JobMessage(job_id=one)) for one in connection.scalars(open_trainings)]
        task, message = self.queue.waiting.popleft()
        if task == CLASSIFY:
            assert isinstance(message, ChunkMessage)
            work_on_chunk(self.shared, self.sender, message.job_id, message.chunk)
            return
        with writing(self.engine) as connection:
            connection.execute(update(TrainingRow).values(due_at=None))
        TrainingWatch(self.engine, self.sender, self.plane, self.settings).look(message.job_id)

    def plane(self) -> ControlPlane:
        raise AssertionError("neither vectors nor prompts need files or jobs at Mistral")

    def status(self, job_id: str) -> dict[str, Any]:
        with reading(self.engine) as connection:
            return status_document(connection, job_id)

    def history(self, job_id: str) -> str:
        with reading(self.engine) as connection:
            lines = connection.scalars(select(EventRow.message).where(EventRow.job_id == job_id).order_by(EventRow.no))
            return "\n".join(lines)

    def model(self) -> ModelRow:
        with reading(self.engine) as connection:
            return registry.resolve_model(connection, "m")

    def labels(self, batch_id: str, target: str = "intent") -> list[Any]:
        found = [row["predictions"].get(target, {}) for row in read_results(self.engine, batch_id)]
        return [one.get("labels", one.get("label")) for one in found]


@pytest.fixture
def mistral() -> Iterator[StrictMistral]:
    with StrictMistral() as server:
        yield server


@pytest.fixture
def mill(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[Mill]:
    made = Mill(engine, mistral, redis_url, tmp_path)
    made.dataset([made_up_row(n) for n in range(120)], [made_up_row(n) for n in range(1000, 1040)])
    yield made
    made.shared.close()


def test_a_head_is_trained_on_vectors_and_classifies(mill: Mill) -> None:
    training = mill.run(mill.train())
    assert (training["state"], training["model"], training["method"]) == ("succeeded", "m@1", "embedding")
    assert set(mill.mistral.billed.values()) == {1}
    assert sum(mill.mistral.billed.values()) == 160
    assert training["cost"] == {"amount": pytest.approx(160 * 7 * 0.1 / 1e6), "currency": "USD", "tokens": 160 * 7}
    assert training["details"]["targets"]["intent"]["validation"]["accuracy"] == 1.0
    texts = [made_up_row(n)["text"] for n in range(2000, 2050)]
    batch = mill.run(mill.classify(texts))
    assert batch["rows"]["labelled"] == 50
    assert batch["tokens"] == 350
    assert mill.labels(batch["id"]) == [label_of(text) for text in texts]
    assert ["alpha" in found for found in mill.labels(batch["id"], "tags")] == [label_of(t) == "alpha" for t in texts]
    assert set(mill.model().thresholds or {}) == {"tags"}


def test_the_same_texts_are_paid_for_once_whatever_trains_on_them(mill: Mill) -> None:
    mill.run(mill.train())
    paid, asked = sum(mill.mistral.billed.values()), mill.mistral.requests
    second = mill.run(mill.train(yes=False))  # nothing to pay, so nobody has to allow it
    assert (second["state"], second["model"], second["estimate"]["amount"]) == ("succeeded", "m@2", 0.0)
    assert (sum(mill.mistral.billed.values()), mill.mistral.requests) == (paid, asked)
    mill.dataset([made_up_row(n) for n in range(100, 140)], [], "other")
    mill.run(mill.train(dataset="other"))
    assert set(mill.mistral.billed.values()) == {1}
    assert sum(mill.mistral.billed.values()) == paid + 20


def test_a_worker_killed_at_any_moment_pays_for_nothing_twice(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    from labelmill_worker.train import embedding, inner_batch  # noqa: PLC0415

    training_id = mill.train()
    (mill.folder / "models" / f"{training_id}.dead.part").mkdir(parents=True)  # what a kill in the middle leaves
    (mill.folder / "models" / f"{training_id}.zip.1.part").touch()
    kills = [(embedding, "open_inner_batch"), (inner_batch, "dispatch_batch"), (embedding, "fit_head"),
             (embedding, "succeed")]  # fmt: skip
    for module, name in kills:
        original = getattr(module, name)

        def die(*arguments: Any, original: Any = original, **options: Any) -> Any:
            original(*arguments, **options)
            raise Killed

        monkeypatch.setattr(module, name, die)
        with pytest.raises(Killed):
            mill.run(training_id)
        monkeypatch.setattr(module, name, original)
        with writing(mill.engine) as connection:
            connection.execute(update(TrainingRow).values(lease_until=0.0))
            connection.execute(update(ChunkRow).values(sent_at=0.0))
        mill.queue.waiting.clear()
        inner = mill.status(training_id)["batch"]
        if inner:
            inner_batch.dispatch_batch(mill.engine, mill.sender, inner, lost_after_s=1)
    document = mill.run(training_id)
    assert [path.name for path in (mill.folder / "models").iterdir()] == [f"{training_id}.zip"]
    assert document["state"] == "succeeded"
    assert set(mill.mistral.billed.values()) == {1}
    with reading(mill.engine) as connection:
        assert len(connection.execute(select(ModelRow.no).where(ModelRow.name == "m")).all()) == 1
        assert len(connection.execute(select(BatchRow.no)).all()) <= 2


def test_a_chunk_whose_worker_died_embeds_only_what_has_no_vector(mill: Mill) -> None:
    training_id = mill.train()
    while not mill.status(training_id)["batch"] or not any(task == CLASSIFY for task, _ in mill.queue.waiting):
        mill.step()
    mill.run(training_id)
    batch_id = mill.status(training_id)["batch"]
    with writing(mill.engine) as connection:  # as if the worker had died before it could close the chunk
        connection.execute(update(ChunkRow).values(state="claimed", lease_token="dead", lease_until=0.0))
        connection.execute(update(BatchRow).values(state="running"))
    return_expired_chunks(mill.engine)
    mill.queue.waiting.append((CLASSIFY, ChunkMessage(job_id=batch_id, chunk=0)))
    before = mill.mistral.requests
    mill.step()
    assert mill.mistral.requests == before
    rows = mill.status(batch_id)["rows"]
    assert (rows["labelled"], rows["pending"]) == (160, 0)


def test_a_head_that_was_tampered_with_fails_the_batch_in_one_sentence(mill: Mill) -> None:
    mill.run(mill.train())
    path = mill.folder / str((mill.model().recipe or {})["file"])
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    path.write_bytes(bytes(data))
    before = mill.mistral.requests
    batch = mill.run(mill.classify(["a", "b"]))
    assert batch["state"] == "failed"
    assert "the file of model m@1 is not the one that was trained" in batch["error"]
    assert mill.mistral.requests == before


@pytest.mark.parametrize(
    ("options", "state"),
    [({"yes": False}, "awaiting_approval"), ({"yes": True}, "succeeded"), ({"max_cost": 1.0}, "succeeded"),
     ({"max_cost": 1e-9}, "awaiting_approval")],
)  # fmt: skip
def test_vectors_are_not_paid_for_beyond_what_was_allowed(mill: Mill, options: dict[str, Any], state: str) -> None:
    training = mill.run(mill.train(**options))
    assert training["state"] == state
    assert training["estimate"]["amount"] > 0
    assert bool(mill.mistral.requests) == (state == "succeeded")
    if state == "awaiting_approval":
        approve(mill.engine, mill.sender, training["id"])
        assert mill.run(training["id"])["state"] == "succeeded"


def test_a_text_that_cannot_be_embedded_is_left_out_and_named(mill: Mill) -> None:
    rows = [made_up_row(n) for n in range(60)]
    rows[3]["text"] = "too long a text"
    mill.dataset(rows, [], "bad")
    mill.mistral.faults.append(refuse_texts_with("too long", 400))
    training = mill.run(mill.train(dataset="bad"))
    assert training["state"] == "succeeded"
    assert training["details"]["targets"]["intent"]["rows"] == 59
    assert "1 texts could not be embedded and are left out" in mill.history(training["id"])


def test_a_refused_key_fails_the_training_as_such(mill: Mill) -> None:
    mill.mistral.faults.append(lambda texts, body: web.Response(status=401, body=b"{}"))
    training = mill.run(mill.train())
    assert (training["state"], training["error_code"]) == ("failed", "credentials_refused")


def test_a_cancelled_training_cancels_its_batch_and_keeps_the_vectors(mill: Mill) -> None:
    training_id = mill.train()
    while not mill.status(training_id)["batch"]:
        mill.step()
    actions.cancel(mill.engine, mill.sender, training_id)
    mill.queue.waiting = deque(one for one in mill.queue.waiting if one[0] == TRAIN)
    assert mill.run(training_id)["state"] == "cancelled"
    assert mill.status(mill.status(training_id)["batch"])["state"] == "cancelled"


def test_a_prompt_is_made_without_a_request_and_answers_one_text_each(mill: Mill) -> None:
    training = mill.run(mill.train(method="prompt", yes=False, shots=2, descriptions={"alpha": "the first"}))
    assert (training["state"], mill.mistral.requests) == ("succeeded", 0)
    recipe = mill.model().recipe or {}
    assert "- alpha: the first" in recipe["system"]
    assert len(recipe["examples"]) >= 8
    texts = [made_up_row(n)["text"] for n in range(2000, 2030)]
    batch = mill.run(mill.classify(texts))
    assert (batch["requests"], batch["tokens"]) == (30, 30 * 55)
    assert mill.labels(batch["id"]) == [label_of(text) for text in texts]
    assert set(mill.mistral.billed.values()) == {1}


def test_an_answer_off_the_schema_is_asked_for_again_and_then_is_the_rows_own_problem(mill: Mill) -> None:
    mill.run(mill.train(method="prompt"))

    def off(texts: list[str], body: dict[str, Any]) -> Any:
        return completed(body, '{"intent":"nonsense","tags":[]}') if texts == ["bad"] else None

    mill.mistral.faults.append(off)
    batch = mill.run(mill.classify(["good", "bad", "fine"]))
    assert (batch["rows"]["labelled"], batch["rows"]["failed"]) == (2, 1)
    (failed,) = [row for row in read_results(mill.engine, batch["id"]) if row["error"]]
    assert (failed["text"], failed["error"]["code"]) == ("bad", "malformed_answer")


def test_the_nearest_examples_are_chosen_for_each_text(mill: Mill) -> None:
    training = mill.run(mill.train(method="prompt", shots=1, shot_selection="nearest"))
    assert training["state"] == "succeeded"
    assert training["cost"]["amount"] > 0
    text = made_up_row(2001)["text"]
    batch = mill.run(mill.classify([text]))
    assert mill.labels(batch["id"]) == [label_of(text)]
    shown = mill.mistral.bodies[-1]["messages"][1:-1]
    assert json.loads(shown[-1]["content"])["intent"] == label_of(text)


def test_every_request_for_the_nearest_examples_is_counted_and_its_tokens_paid_once(mill: Mill) -> None:
    mill.run(mill.train(method="prompt", shots=1, shot_selection="nearest"))
    text = made_up_row(2001)["text"]
    plain = mill.run(mill.classify([text]))
    sent = mill.mistral.requests
    failures = iter([web.Response(status=503)])
    mill.mistral.faults.append(lambda texts, body: next(failures, None) if "messages" in body else None)
    batch = mill.run(mill.classify([text]))
    assert batch["requests"] == mill.mistral.requests - sent == 3  # a vector, a chat that failed, a chat
    assert plain["requests"] == 2
    assert batch["tokens"] == plain["tokens"]


def test_what_a_batch_costs_is_estimated_from_its_tokens(mill: Mill) -> None:
    mill.run(mill.train())
    batch = mill.run(mill.classify(["one text", "another text", "one text"]))
    assert batch["tokens"] > 0
    expected = {"amount": round(batch["tokens"] * 0.1 / 1e6, 8), "currency": "USD", "estimated": True}
    assert batch["cost"] == expected | {"prices_as_of": PRICES_AS_OF}
    with reading(mill.engine) as connection:
        own = status_document(connection, batch["id"], PriceList({"mistral-embed": (7.0, 0.0)}))["cost"]
    assert own == {"amount": round(batch["tokens"] * 7 / 1e6, 8), "currency": "USD", "estimated": True,
                   "prices_as_of": "LABELMILL_PRICES"}  # fmt: skip


def test_chats_are_embedded_prompted_and_classified_as_their_conversations(mill: Mill) -> None:
    def chat(number: int) -> dict[str, Any]:
        row = made_up_row(number)
        return {"messages": [{"role": "user", "content": row["text"]}], "labels": row["labels"]}

    mill.dataset([chat(n) for n in range(80)], [chat(n) for n in range(1000, 1020)], "chats")
    assert mill.run(mill.train(dataset="chats"))["state"] == "succeeded"
    asked = chat_as_text(chat(3000)["messages"])
    source = mill.folder / "chats.jsonl"
    source.write_text(json.dumps({"messages": chat(3000)["messages"]}) + "\n")
    batch = mill.run(submit_batch(mill.engine, mill.sender, source=str(source), model="m", text="messages"))
    (row,) = list(read_results(mill.engine, batch["id"]))
    assert row["text"] == asked
    assert mill.mistral.bodies[-1]["input"] == [f"user: {made_up_row(3000)['text']}"]


def test_a_registered_model_of_chats_is_asked_at_the_endpoint_of_chats(mill: Mill) -> None:
    with writing(mill.engine) as connection:
        row = registry.register(connection, "old", "ft:classifier:before", chats=True)
        assert registry.register(connection, "old", "ft:classifier:before", chats=True).no == row.no
    batch = mill.run(mill.classify(["one text", "another"], "old"))
    assert (batch["model"], batch["rows"]["labelled"]) == ("old@1", 2)
    assert mill.mistral.bodies[-1]["input"][0] == {"messages": [{"role": "user", "content": "one text"}]}
