"""Every submission takes an idempotency key and metadata, whatever kind of job it makes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from documents import checked
from sqlalchemy import func, insert, select, update

from labelmill import Client
from labelmill.contracts.errors import InvalidInput, KeyTaken
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import DatasetRow, JobMetadataRow, ModelRow
from labelmill.core.jobs.tables import TABLE_OF, Kind
from labelmill.core.settings import load_settings

SCHEMA = [{"name": "intent", "labels": ["a", "b"], "multi": False}]
Submit = Callable[..., Any]
Submissions = dict[Kind, tuple[Submit, list[dict[str, Any]]]]


class Quiet:
    def send(self, *_: Any, **__: Any) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def client(database_url: str, tmp_path: Path) -> Iterator[Client]:
    with Client(load_settings(database_url=database_url, data_dir=str(tmp_path / "data"))) as made:
        with writing(made.context.engine) as connection:
            connection.execute(
                insert(DatasetRow).values(
                    id="prep_0000000001",
                    name="d",
                    version=1,
                    state="ready",
                    spec={},
                    splits={"train": 4, "test": 4},
                    label_schema=SCHEMA,
                    files={},
                    fingerprint="f",
                )
            )
            connection.execute(
                insert(ModelRow).values(
                    name="m",
                    version=1,
                    promoted=True,
                    method="embedding",
                    remote_model="mistral-embed",
                    label_schema=SCHEMA,
                )
            )
        made.context = replace(made.context, sender=Quiet())  # type: ignore[arg-type]
        yield made


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{row}", "label": "ab"[row % 2]}) + "\n" for row in range(6)))
    return path


@pytest.fixture
def submissions(client: Client, rows: Path) -> Submissions:
    """For each kind how such a job is submitted, and options that make it another request."""

    def prepare(**options: Any) -> Any:
        return client.prepare(source=str(rows), **{"name": "n", "targets": ["intent=label"]} | options)

    def train(**options: Any) -> Any:
        return client.train("m", "d", **options)

    def classify(**options: Any) -> Any:
        return client.classify(str(rows), "m", **options)

    def evaluate(**options: Any) -> Any:
        return client.evaluate("m", "d", **options)

    return {
        Kind.DATASET: (prepare, [{"seed": 7}, {"name": "other"}, {"where": ["label=a"]}]),
        Kind.TRAINING: (train, [{"max_cost": 3.0}, {"method": "prompt"}, {"yes": True}, {"mode": "batch"}]),
        Kind.BATCH: (classify, [{"thresholds": {"*": 0.5}}, {"max_cost": 3.0}, {"mode": "batch"}, {"priority": "low"}]),
        Kind.EVALUATION: (evaluate, [{"split": "train"}, {"max_cost": 3.0}, {"mode": "batch"}]),
    }


@pytest.fixture(params=list(Kind), ids=lambda kind: kind.value)
def kind(request: pytest.FixtureRequest) -> Kind:
    return Kind(request.param)


def _count(client: Client, kind: Kind) -> int:
    with reading(client.context.engine) as connection:
        return int(connection.scalar(select(func.count()).select_from(TABLE_OF[kind])) or 0)


def test_the_same_request_under_a_key_is_one_job_and_another_one_is_refused(
    client: Client, submissions: Submissions, kind: Kind
) -> None:
    submit, others = submissions[kind]
    before = _count(client, kind)
    first = submit(idempotency_key="k")
    assert submit(idempotency_key="k").id == first.id
    for other in others:
        with pytest.raises(KeyTaken, match=first.id) as refused:
            submit(idempotency_key="k", **other)
        assert (refused.value.exit_code, refused.value.field) == (2, "idempotency_key")
    assert _count(client, kind) == before + 1
    assert submit(idempotency_key="k2").id != first.id
    assert submit().id != submit().id


def test_a_key_stands_for_one_job_of_any_kind(client: Client, submissions: Submissions, kind: Kind) -> None:
    submit, _ = submissions[kind]
    job = submit(idempotency_key="k")
    for other, (submit_other, _) in submissions.items():
        if other is not kind:
            before = _count(client, other)
            with pytest.raises(KeyTaken, match=f"{job.id}, which has another kind of request"):
                submit_other(idempotency_key="k")
            assert _count(client, other) == before


@pytest.mark.parametrize("kind", [Kind.TRAINING, Kind.BATCH, Kind.EVALUATION], ids=lambda kind: kind.value)
def test_a_cancelled_job_gives_its_key_up(client: Client, submissions: Submissions, kind: Kind) -> None:
    submit, (other, *_) = submissions[kind]
    first = submit(idempotency_key="k")
    first.cancel()
    second = submit(idempotency_key="k", **other)
    assert second.id != first.id
    assert submit(idempotency_key="k", **other).id == second.id


def test_requests_under_one_key_at_the_same_moment_make_one_job(
    client: Client, submissions: Submissions, kind: Kind
) -> None:
    submit, _ = submissions[kind]
    before, together = _count(client, kind), threading.Barrier(4)

    def post(_: int) -> str:
        together.wait(30)
        return str(submit(idempotency_key="k").id)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(post, range(4)))) == 1
    assert _count(client, kind) == before + 1


def test_a_later_state_of_the_world_does_not_make_it_another_request(client: Client) -> None:
    first = client.train("m", "d", idempotency_key="k")
    with writing(client.context.engine) as connection:
        connection.execute(update(DatasetRow).where(DatasetRow.name == "d").values(name="gone"))
    assert client.train("m", "d", idempotency_key="k").id == first.id


def test_other_rows_under_the_key_of_a_preparation_are_refused_and_leave_no_copy(
    client: Client, rows: Path, tmp_path: Path
) -> None:
    def copies() -> set[str]:
        return {path.name for path in (tmp_path / "data" / "sources").iterdir()}

    first = client.prepare("n", str(rows), targets=["intent=label"], idempotency_key="k")
    elsewhere = rows.rename(tmp_path / "moved.jsonl")
    assert client.prepare("n", str(elsewhere), targets=["intent=label"], idempotency_key="k").id == first.id
    with elsewhere.open("a") as file:
        file.write('{"text": "more", "label": "a"}\n')
    with pytest.raises(KeyTaken):
        client.prepare("n", str(elsewhere), targets=["intent=label"], idempotency_key="k")
    assert copies() == {first.id}


def test_metadata_stays_with_a_job_of_any_kind_and_finds_it(
    client: Client, submissions: Submissions, kind: Kind
) -> None:
    submit, _ = submissions[kind]
    metadata = {"team": "search", "order": "7 = seven"}
    job = submit(metadata=metadata, idempotency_key="k")
    submit(metadata={"team": "search"})
    assert checked(job.status())["metadata"] == metadata
    assert [entry["metadata"] for entry in client.jobs(metadata=metadata)] == [metadata]
    assert len(client.jobs(kind.value, metadata={"team": "search"})) == 2
    assert len(client.jobs(kind.value, metadata={"team": "search"}, limit=1, after=job.id)) == 0
    assert client.jobs(metadata={"team": "Search"}) == []
    again = submit(metadata={"try": "second"}, idempotency_key="k")
    assert (again.id, again.status()["metadata"]) == (job.id, metadata)


@pytest.mark.parametrize(
    "metadata",
    [
        {"": "x"},
        {"a\n": "x"},
        {"a=b": "x"},
        {"x" * 65: "x"},
        {"a": "x" * 501},
        {"a": "\x00"},
        {"a": "\ud800"},
        {"a": 1},
        {1: "a"},
        {f"n{number}": "x" for number in range(17)},
    ],
    ids=lambda metadata: repr(metadata)[:20],
)
def test_metadata_that_no_database_should_keep_is_refused_before_anything_is_written(
    client: Client, submissions: Submissions, metadata: Any
) -> None:
    for kind, (submit, _) in submissions.items():
        before = _count(client, kind)
        with pytest.raises(InvalidInput) as refused:
            submit(metadata=metadata)
        assert refused.value.field == "metadata"
        assert _count(client, kind) == before
    with reading(client.context.engine) as connection:
        assert connection.scalar(select(func.count()).select_from(JobMetadataRow)) == 0


def test_the_longest_metadata_is_kept(client: Client) -> None:
    metadata = {f"{number:02}" + "ä" * 62: "😀" * 500 for number in range(16)}
    job = client.train("m", "d", metadata=metadata)
    assert job.status()["metadata"] == metadata
    (listed,) = client.jobs(metadata=metadata)
    assert listed["id"] == job.id
