"""The Python clients: every call is that of a service, and what it returns is what the command line prints."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from strict_mistral import LABELS, StrictMistral
from workshop import Workshop

from labelmill import AsyncBatch, AsyncClient, Batch, Client, Training, notebook
from labelmill.contracts.documents.jobs import JobEntry
from labelmill.contracts.errors import BrokerUnavailable, InvalidInput, NotFound
from labelmill.core.readers.python_rows import iterables

SCHEMA = [{"name": "intent", "labels": LABELS, "multi": False}]


class DeadRedis:
    def send(self, *_: object, **__: object) -> None:
        raise BrokerUnavailable("Redis cannot be reached")


@pytest.fixture
def shop(engine: Engine, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    with StrictMistral() as mistral:
        made = Workshop(engine, mistral, redis_url, tmp_path)
        made.model("m", SCHEMA)
        made.dataset("d", SCHEMA, train=[{"text": f"t{n}", "labels": {"intent": "alpha"}} for n in range(4)])
        yield made
        made.close()


@pytest.fixture
def client(shop: Workshop, database_url: str) -> Iterator[Client]:
    made = Client(shop.resources.settings.model_copy(update={"database_url": database_url}))
    opened = made.context
    made.context = replace(opened, sender=shop.sender)
    yield made
    opened.close()


@pytest.fixture
def texts(tmp_path: Path) -> str:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(f'{{"text": "say {number}"}}\n' for number in range(30)))
    return str(path)


def test_a_batch_is_submitted_followed_and_read(shop: Workshop, client: Client, texts: str) -> None:
    batch = client.classify(texts, "m")
    assert (batch.status()["state"], batch.warnings) == ("queued", ())
    shop.run(batch.id)
    assert batch.wait()["rows"]["labelled"] == 30
    assert [row["text"] for row in batch.results()] == [f"say {number}" for number in range(30)]
    assert [job["id"] for job in client.jobs(kind="batch")] == [batch.id]


def test_lists_are_those_of_the_command_line(client: Client) -> None:
    assert [model["model"] for model in client.models()] == ["m@1"]
    assert [(one["name"], one["label_counts"]) for one in client.datasets()] == [("d", {"intent": len(LABELS)})]
    assert client.jobs(kind="training") == []


def test_a_parameter_that_is_wrong_is_named(client: Client, texts: str) -> None:
    for wrong, field in (
        (lambda: client.classify(texts, "m", priority="urgent"), "priority"),
        (lambda: client.classify(texts, "m", thresholds={"itnent": 0.5}), "thresholds"),
        (lambda: client.prepare("n", texts, targets=["intent"]), "targets"),
        (lambda: client.train("m", "d", steps=0, method="factory"), "steps"),
        (lambda: client.train("m", "d", shots=3), "shots"),
        (lambda: client.evaluate("m", "d", "test"), "split"),
        (lambda: client.jobs(kind="job"), "kind"),
    ):
        with pytest.raises(InvalidInput) as raised:
            wrong()
        assert raised.value.field == field
        assert "--" not in raised.value.message


def test_a_training_that_does_not_wait_is_not_approved(client: Client) -> None:
    training = client.train("m", "d", method="prompt", shots=1)
    with pytest.raises(InvalidInput, match="does not wait for approval"):
        training.approve()
    training.cancel()
    assert training.wait()["state"] == "cancelled"


def test_warnings_belong_to_the_call(client: Client, texts: str) -> None:
    client.context = replace(client.context, sender=DeadRedis())  # type: ignore[arg-type]
    first, second = client.classify(texts, "m"), client.job("batch_0")
    assert ["starts when Redis is back" in one for one in first.warnings] == [True]
    assert second.warnings == ()


def test_the_asynchronous_client_does_the_same(shop: Workshop, client: Client, texts: str) -> None:
    async def main() -> None:
        mine = AsyncClient.of(client)
        batch = await mine.classify(texts, "m")
        worker = threading.Thread(target=shop.run, args=(batch.id,))
        worker.start()
        document = await batch.wait(timeout_s=60)
        worker.join()
        assert document["rows"]["labelled"] == 30
        assert [row["row"] async for row in batch.results()] == list(range(30))
        async for row in mine.results(batch.id):
            assert row["row"] == 0
            break  # what is left is not read
        assert [job["id"] for job in await mine.jobs(state="completed")] == [batch.id]
        with pytest.raises(NotFound):
            await mine.status("batch_0")
        with pytest.raises(InvalidInput):
            await mine.cancel(batch.id)

    asyncio.run(main())


def test_an_asynchronous_wait_ends_when_its_time_is_over(client: Client, texts: str) -> None:
    async def main() -> None:
        batch = await AsyncClient.of(client).classify(texts, "m")
        with pytest.raises(TimeoutError, match=r"is still queued after 0\.1 s"):
            await batch.wait(timeout_s=0.1)

    asyncio.run(main())


def test_rows_of_the_program_are_classified_and_come_back_as_tables(shop: Workshop, client: Client) -> None:
    rows = [{"text": f"say {number}", "key": f"k{number}"} for number in range(5)]
    batch = client.classify(pl.DataFrame(rows), "m", id_column="key")
    shop.run(batch.id)
    expected = [(row["id"], row["predictions"]["intent"]["label"]) for row in batch.results()]
    assert [key for key, _ in expected] == ["k0", "k1", "k2", "k3", "k4"]

    batches = list(batch.arrow(batch_rows=2))
    assert [each.num_rows for each in batches] == [2, 2, 1]
    frame, polars, dataset = batch.pandas(), batch.polars(scores="none"), batch.dataset(scores="top:1")
    assert isinstance(frame, pd.DataFrame)
    assert list(zip(frame["id"], frame["intent"], strict=True)) == expected
    assert sorted(frame["intent_scores"][0]) == sorted(LABELS)
    assert polars.select("id", "intent").rows() == expected
    assert "intent_scores" not in polars.columns
    assert list(zip(dataset["id"], dataset["intent"], strict=True)) == expected
    assert [scores[0]["label"] for scores in dataset["intent_scores"]] == [label for _, label in expected]
    assert batch.pandas(only="failed").shape == (0, len(frame.columns))
    for wrong, field in ((lambda: batch.results(only="bad"), "only"), (lambda: batch.arrow(0), "batch_rows")):  # type: ignore[arg-type]
        with pytest.raises(InvalidInput) as refused:
            wrong()
        assert refused.value.field == field


def test_a_dataset_is_prepared_from_rows_of_the_program(client: Client, tmp_path: Path) -> None:
    rows = pd.DataFrame({"body": ["a", "b"], "intent": ["x", None], "other": [1, 2]})
    job = client.prepare("n", rows, text="body", targets=["intent=intent"])
    (copy,) = (tmp_path / "sources" / job.id).iterdir()
    assert copy.read_text().splitlines() == ['{"body":"a","intent":"x"}', '{"body":"b","intent":null}']
    with pytest.raises(InvalidInput, match=r"has no column 'intnt'.*did you mean 'intent'"):
        client.prepare("n", [{"text": "a", "intent": "x"}], targets=["intent=intnt"])
    with pytest.raises(InvalidInput, match="is for files") as refused:
        client.prepare("n", ["a"], targets=["intent=intent"], delimiter=";")
    assert refused.value.field == "delimiter"
    assert [path.name for path in (tmp_path / "sources").iterdir()] == [job.id]


def test_waiting_for_many_jobs_asks_for_all_states_at_once(shop: Workshop, client: Client, engine: Engine) -> None:
    batches = [client.classify([f"text {number}"], "m") for number in range(20)]
    training = client.train("t", "d", method="prompt")
    training.cancel()
    worker = threading.Thread(target=lambda: [shop.run(batch.id) for batch in batches])
    seen: dict[str, list[JobEntry]] = {}
    worker.start()
    documents = client.wait(
        [*batches, training.id], 60, on_progress=lambda job: seen.setdefault(job["id"], []).append(job)
    )
    worker.join()
    assert [document["id"] for document in documents] == [*(batch.id for batch in batches), training.id]
    assert {document["state"] for document in documents} == {"completed", "cancelled"}
    assert {seen[batch.id][-1]["state"] for batch in batches} == {"completed"}

    statements: list[str] = []
    counts: list[int] = []
    waiting = [client.classify([f"more {number}"], "m").id for number in range(20)]
    event.listen(client.context.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    steps = client._waiting([*waiting, training.id])
    next(steps)
    count = len(statements)
    next(steps)
    assert len([each for each in statements[count:] if each.lstrip().upper().startswith("SELECT")]) == 1
    for each in (batches[:1], batches):
        statements.clear()
        client.wait(each)
        counts.append(len([each for each in statements if each.lstrip().upper().startswith("SELECT")]))
    assert counts[0] == counts[1]  # for the documents too: however many have ended
    with pytest.raises(TimeoutError, match=r"batch_\w+ is still queued, .* after 0 s"):
        client.wait(waiting, 0)
    with pytest.raises(NotFound):
        client.wait([*waiting, "batch_0"])
    with pytest.raises(NotFound):
        client.wait(["whatever"])
    assert client.wait([]) == []


def test_a_handle_is_of_the_class_for_its_kind(client: Client) -> None:
    batch = client.classify(["a"], "m")
    assert isinstance(client.job(batch.id), Batch)
    assert isinstance(client.job("train_1"), Training)
    assert isinstance(AsyncClient.of(client).job(batch.id), AsyncBatch)
    assert repr(batch) == f"<Batch {batch.id}>"


def test_texts_that_come_asynchronously_are_read_in_pieces(
    shop: Workshop, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iterables, "ROWS_AT_ONCE", 1_500)
    texts = [f"say {number}" for number in range(4_000)]

    async def main() -> None:
        mine, read = AsyncClient.of(client), [0]

        async def come() -> AsyncIterator[str]:
            for read[0], text in enumerate(texts):
                yield text

        batch = await mine.classify(source=come(), model="m")
        assert (await batch.status())["rows"]["submitted"] == len(texts)
        assert [row["text"] async for row in batch.results()] == []

        async def stay_away() -> AsyncIterator[str]:
            yield "one"
            await asyncio.Event().wait()

        async def fail() -> AsyncIterator[dict[str, str]]:
            yield {"text": "one"}
            raise ZeroDivisionError

        async def other() -> AsyncIterator[dict[str, str]]:
            yield {"text": "one"}

        with pytest.raises(ZeroDivisionError):
            await mine.classify(fail(), "m")
        with pytest.raises(InvalidInput, match="<async_generator> has no column 'body'"):
            await mine.classify(other(), "m", text="body")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(mine.classify(stay_away(), "m"), 0.5)
        assert [job["state"] for job in await mine.jobs("batch")] == ["queued"]

    asyncio.run(main())


def test_results_may_be_the_source_of_many_submissions_at_once(shop: Workshop, client: Client) -> None:
    async def main() -> None:
        mine = AsyncClient.of(client)
        first = await mine.classify([f"text {number}" for number in range(30)], "m")
        await asyncio.to_thread(shop.run, first.id)

        async def texts() -> AsyncIterator[str]:
            async for row in first.results():
                yield f"again {row['text']}"

        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))  # fewer threads than submissions
        async with asyncio.timeout(60):
            again = await asyncio.gather(*(mine.classify(texts(), "m") for _ in range(5)))
        assert [(await batch.status())["rows"]["submitted"] for batch in again] == [30] * 5

    asyncio.run(main())


def test_generators_that_wait_leave_the_threads_of_the_program_free(client: Client) -> None:
    async def main() -> None:
        mine, go_on, two_wait = AsyncClient.of(client), threading.Event(), asyncio.Event()
        loop, begun = asyncio.get_running_loop(), count(1)
        loop.set_default_executor(ThreadPoolExecutor(2))  # fewer threads than submissions

        def texts() -> Iterator[str]:
            yield "one"
            if next(begun) == 2:
                loop.call_soon_threadsafe(two_wait.set)
            assert go_on.wait(60)

        submissions = [asyncio.create_task(mine.classify(texts(), "m")) for _ in range(5)]
        try:
            async with asyncio.timeout(30):
                await two_wait.wait()
                assert await mine.jobs("training") == []
        finally:
            go_on.set()
        assert len(await asyncio.gather(*submissions)) == 5

    asyncio.run(main())


@pytest.mark.parametrize("hold", [iter, list], ids=["generator", "list"])
def test_a_submission_that_is_cancelled_starts_no_job(
    client: Client, monkeypatch: pytest.MonkeyPatch, hold: Callable[[Iterator[str]], Any]
) -> None:
    """Rows that a thread reads, one by one or by the block: whoever cancels the call knows no id of a job."""
    monkeypatch.setattr(iterables, "ROWS_AT_ONCE", 10)
    read, is_cancelled = threading.Event(), threading.Event()
    block_of = iterables._plain_block

    def wait_after_the_first(some: list[Any], columns: list[str]) -> object:
        if some[0] != "say 0":
            read.set()
            assert is_cancelled.wait(30)
        return block_of(some, columns)

    monkeypatch.setattr(iterables, "_plain_block", wait_after_the_first)

    async def main() -> None:
        mine = AsyncClient.of(client)
        submission = asyncio.create_task(mine.classify(hold(f"say {number}" for number in range(30)), "m"))
        await asyncio.to_thread(read.wait, 30)
        submission.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submission
        is_cancelled.set()

    asyncio.run(main())
    (batch,) = client.jobs("batch")
    assert client.job(batch["id"]).wait(30)["state"] == "failed"
    assert client.status(batch["id"])["error_code"] == "submission_broken"


def test_a_preparation_that_is_cancelled_writes_no_job_and_no_file(client: Client, tmp_path: Path) -> None:
    read, is_cancelled, has_ended = threading.Event(), threading.Event(), threading.Event()

    def rows() -> Iterator[dict[str, str]]:
        try:
            yield {"text": "a", "intent": "x"}
            read.set()
            assert is_cancelled.wait(30)
            yield {"text": "b", "intent": "y"}
        finally:
            has_ended.set()

    async def main() -> None:
        mine = AsyncClient.of(client)
        submission = asyncio.create_task(mine.prepare("n", rows(), targets=["intent=intent"]))
        await asyncio.to_thread(read.wait, 30)
        submission.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submission
        is_cancelled.set()
        assert await asyncio.to_thread(has_ended.wait, 30)

    asyncio.run(main())
    end = time.monotonic() + 60
    while any((tmp_path / "sources").iterdir()):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert client.jobs("dataset", state="queued") == []


def test_an_asynchronous_client_reads_tables_and_tells_progress_in_its_loop(shop: Workshop, client: Client) -> None:
    async def main() -> None:
        mine = AsyncClient.of(client)
        batch = await mine.classify(["a", "b"], "m", metadata={"team": "search"})
        shop.run(batch.id)
        threads = set()
        (document,) = await mine.wait([batch], on_progress=lambda _: threads.add(threading.current_thread()))
        assert threads == {threading.main_thread()}
        assert document["metadata"] == {"team": "search"}
        assert [each.num_rows async for each in batch.arrow(1)] == [1, 1]
        assert (await batch.polars())["text"].to_list() == ["a", "b"]

    asyncio.run(main())


def test_results_that_are_followed_leave_the_threads_of_the_program_free(shop: Workshop, client: Client) -> None:
    async def main() -> None:
        mine = AsyncClient.of(client)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))  # fewer threads than readers
        first, never = await mine.classify(["a", "b"], "m"), await mine.classify(["c"], "m")

        async def rows(batch: AsyncBatch) -> int:
            return len([row async for row in batch.results(follow=True)])

        async def arrow(batch: AsyncBatch) -> int:
            return sum([each.num_rows async for each in batch.arrow(follow=True)])

        async def polars(batch: AsyncBatch) -> int:
            return (await batch.polars(follow=True)).height

        followers = [asyncio.create_task(call(first)) for call in (rows, arrow, polars) * 2]
        waiters = [asyncio.create_task(call(never)) for call in (rows, arrow, polars)]
        async with asyncio.timeout(60):
            assert [entry["id"] for entry in await mine.jobs(limit=1)] == [never.id]
            await asyncio.to_thread(shop.run, first.id)
            assert await asyncio.gather(*followers) == [2] * 6
            for waiter in waiters:
                waiter.cancel()
            await asyncio.gather(*waiters, return_exceptions=True)

    asyncio.run(main())
    end = time.monotonic() + 60
    while any(thread.name.startswith(("labelmill-results", "results")) for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_loops_of_several_threads_share_an_asynchronous_client(client: Client) -> None:
    mine, begins = AsyncClient(client.settings), threading.Barrier(3)
    begun = asyncio.run(mine.jobs())
    other = AsyncClient(client.settings)
    open_slowly, other._open = other._open, lambda: (time.sleep(0.05), open_slowly())[1]

    async def ask() -> bool:
        begins.wait(30)
        listed = await asyncio.gather(*(each.jobs() for each in [mine, other] * 10))
        return all(jobs == begun for jobs in listed)

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(lambda _: asyncio.run(ask()), range(3))) == [True] * 3
    asyncio.run(mine.close())
    asyncio.run(other.close())


def test_a_job_is_watched_to_its_end(shop: Workshop, client: Client) -> None:
    batch = client.classify(["a", "b"], "m")
    entries = client.watch(batch)
    states = [next(entries)["state"]]
    shop.run(batch.id)
    states += [entry["state"] for entry in entries]
    assert (states[0], states[-1]) == ("queued", "completed")
    assert [entry["state"] for entry in batch.watch()] == ["completed"]
    with pytest.raises(TimeoutError):
        list(client.watch(client.classify(["c"], "m").id, timeout_s=0))
    with pytest.raises(NotFound):
        next(client.watch("batch_0"))

    async def main() -> None:
        other = await AsyncClient.of(client).classify(["c"], "m")
        worker = threading.Thread(target=shop.run, args=(other.id,))
        worker.start()
        seen = [entry["state"] async for entry in other.watch(60)]
        worker.join()
        assert seen[-1] == "completed"

    asyncio.run(main())


def test_models_are_promoted_named_and_retired_from_a_program(shop: Workshop, client: Client) -> None:
    shop.model("m", SCHEMA, version=2, promoted=False)
    assert client.promote("m@2") == {
        "model": "m@2",
        "state": "ready",
        "promoted": True,
        "note": None,
        "remote_wish": None,
        "warnings": [],
    }
    assert client.rollback("m")["model"] == "m@1"
    assert client.alias("m@2", "next")["model"] == "m@2"
    assert client.model("m@next")["aliases"] == ["next"]
    assert client.remove_alias("m@next") == {"alias": "m@next", "removed": True}
    assert client.note("m@2", "too slow")["note"] == "too slow"
    assert client.threshold("m", {"*": 0.5})["thresholds"] == {"intent": 0.5}
    assert client.threshold("m", {"intent": 0.75})["thresholds"] == {"intent": 0.75}
    assert client.threshold("m") == {"model": "m@1", "thresholds": {"intent": 0.75}}
    assert client.clear_thresholds("m")["thresholds"] == {}
    assert client.register("old", "ft:classifier:old:1", multi=["tags"])["model"] == "old@1"
    assert client.archive("m@2", here_only=True)["state"] == "archived"
    assert client.delete("m@2", here_only=True)["state"] == "deleted"
    with pytest.raises(InvalidInput, match="not between 0 and 1") as refused:
        client.threshold("m", {"intent": 2})
    assert refused.value.field == "thresholds"
    with pytest.raises(NotFound):
        client.promote("nothing@1")

    async def main() -> None:
        mine = AsyncClient.of(client)
        assert (await mine.alias("m@1", "champion"))["model"] == "m@1"
        assert (await mine.threshold("m@champion", {"intent": 0.25}))["thresholds"] == {"intent": 0.25}

    asyncio.run(main())
    client.context = replace(client.context, sender=DeadRedis())  # type: ignore[arg-type]
    (warning,) = client.archive("old@1")["warnings"]
    assert "is made when Redis is back" in warning


def test_the_report_of_a_job_is_a_page_for_a_program(shop: Workshop, client: Client) -> None:
    batch = client.classify(["a", "b"], "m")
    shop.run(batch.id)
    page = client.report(batch.id)
    assert page.startswith("<!DOCTYPE html>")
    assert batch.id in page
    assert asyncio.run(AsyncClient.of(client).job(batch.id).report()) == batch.report() == page
    with pytest.raises(NotFound):
        client.report("batch_0")


class Shell:
    kernel = None


class Python:
    """Of IPython what a notebook has loaded."""

    def __init__(self) -> None:
        self.pages: list[object] = []
        self.display = self

    def get_ipython(self) -> Shell:
        return Shell()

    def update(self, page: object) -> None:
        self.pages.append(page)

    def __call__(self, page: object, *, display_id: bool) -> Python:
        assert display_id
        self.pages.append(page)
        return self


def test_jobs_that_have_ended_keep_the_number_of_their_rows(shop: Workshop, client: Client, tmp_path: Path) -> None:
    rows = [{"text": f"say {number}", "intent": LABELS[number % 2]} for number in range(30)]
    dataset = client.prepare("n", rows, targets=["intent=intent"])
    evaluation = client.evaluate("m", "d", "train")
    for job, number in ((dataset, 30), (evaluation, 4)):
        shop.run(job.id)
        document = job.status()
        assert document["progress"] == {"phase": document["state"], "done": number, "total": number}
        assert client.jobs(document["kind"])[0]["progress"] == document["progress"]


def test_a_notebook_shows_progress_and_tables(shop: Workshop, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    python = Python()
    monkeypatch.setattr(python, "display", type("Module", (), {"display": python}))
    batch = client.classify(["a", "b"], "m", metadata={"note": "<b>"})
    shop.run(batch.id)
    monkeypatch.setitem(sys.modules, "IPython", python)  # type: ignore[arg-type]
    batch.wait()
    assert "2/2 rows" in repr(python.pages[-1])
    assert '<progress value="2" max="2">' in python.pages[-1]._repr_html_()  # type: ignore[attr-defined]
    page = batch._repr_html_()
    assert "labelled: 2" in page
    assert "&lt;b&gt;" in page
    assert "<td>0.900</td>" in notebook.metrics_as_html({"intent": {"accuracy": 0.9, "rows": 3, "macro_f1": None}})
