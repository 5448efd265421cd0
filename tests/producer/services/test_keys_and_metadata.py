"""Every submission takes an idempotency key and metadata, whatever kind of job it makes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from asked import Submissions
from documents import checked
from sqlalchemy import func, insert, select, update

from labelmill import Client
from labelmill.contracts.errors import InvalidInput, KeyTaken, NotFound
from labelmill.core.chunks.writer import BatchWriter
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, DatasetRow, JobMetadataRow, ModelRow
from labelmill.core.jobs.tables import TABLE_OF, Kind


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


def _promote_a_second_version(client: Client) -> None:
    with writing(client.context.engine) as connection:
        row = dict(connection.execute(select(ModelRow.__table__).where(ModelRow.name == "m")).mappings().one())
        del row["no"]
        connection.execute(update(ModelRow).values(promoted=False))
        connection.execute(insert(ModelRow).values(**row | {"version": 2, "promoted": True}))


def test_a_batch_under_a_key_is_the_same_after_another_version_was_promoted(client: Client) -> None:
    first = client.classify(["a", "b"], "m", idempotency_key="k", max_cost=1.0)
    _promote_a_second_version(client)
    for model in ("m", "m@1"):
        assert client.classify(["a", "b"], model, idempotency_key="k", max_cost=1.0).id == first.id
    with pytest.raises(KeyTaken):
        client.classify(["a", "b"], "m@2", idempotency_key="k", max_cost=1.0)
    with writing(client.context.engine) as connection:
        connection.execute(update(ModelRow).values(promoted=False))  # the name means nothing any more
    assert client.classify(["a", "b"], "m", idempotency_key="k", max_cost=1.0).id == first.id
    first.cancel()
    with pytest.raises(NotFound):
        client.classify(["a", "b"], "m", idempotency_key="k", max_cost=1.0)


def test_an_interrupted_batch_goes_on_with_the_version_that_it_was_submitted_to(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(BatchWriter, "finish", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            client.classify(["a", "b"], "m", idempotency_key="k")
    _promote_a_second_version(client)
    batch = client.classify(["a", "b"], "m", idempotency_key="k")
    assert batch.status()["state"] == "queued"
    with reading(client.context.engine) as connection:
        version = select(ModelRow.version).join(BatchRow, BatchRow.model_no == ModelRow.no)
        assert connection.scalar(version) == 1


def test_a_comparison_under_a_key_is_the_same_after_another_version_was_promoted(client: Client) -> None:
    _promote_a_second_version(client)
    first = client.compare(["m", "m@1"], "d", idempotency_key="k")
    with writing(client.context.engine) as connection:
        connection.execute(update(ModelRow).values(promoted=ModelRow.version == 1))
    again = client.compare(["m", "m@1"], "d", idempotency_key="k")
    assert [job.id for job in again] == [job.id for job in first]
