"""Prepare jobs: from the message to what SQL says afterwards."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from asked import submit_prepare
from celery import Celery
from sqlalchemy import select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import RemoteUnavailable, StorageUnavailable
from labelmill.contracts.messages import JobMessage
from labelmill.core.database import connect, db_now, reading, upgrade, writing
from labelmill.core.database.tables import DatasetRow, EventRow
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill.services.jobs.documents import status_document
from labelmill_worker.prepare import preparation as work
from labelmill_worker.prepare.dataset import prepare_dataset
from labelmill_worker.runtime.bootstrap import ProcessResources
from labelmill_worker.runtime.tasks import prepare
from labelmill_worker.store import lease_keeper
from labelmill_worker.store.jobs import claim_job, read_job, renew_job
from labelmill_worker.store.lease_keeper import LeaseKeeper


class Outbox(MessageSender):
    """Keeps what was sent."""

    def __init__(self) -> None:
        super().__init__(Celery("test", set_as_current=False))
        self.sent: list[JobMessage] = []

    def send(
        self, task: str, messages: Sequence[JobMessage], *, priority: str = "normal", countdown_s: float | None = None
    ) -> None:
        self.sent += messages


@pytest.fixture
def resources(tmp_path: Path) -> Iterator[ProcessResources]:
    settings = Settings(data_dir=str(tmp_path / "data"), lease_s=30, _env_file=None)  # type: ignore[call-arg]
    engine = connect(f"sqlite:///{tmp_path / 'test.db'}")
    upgrade(engine)
    yield ProcessResources(settings, engine, Outbox())
    engine.dispose()


def write_rows(path: Path, rows: int = 30) -> Path:
    path.write_text("".join(json.dumps({"text": f"t{n}", "label": "ab"[n % 2]}) + "\n" for n in range(rows)))
    return path


def submit(resources: ProcessResources, source: Path | str, **options: Any) -> str:
    given = {"name": "intents", "targets": ["intent=label"]} | options
    return submit_prepare(resources.engine, resources.sender, resources.settings, source=str(source), **given)


def run(resources: ProcessResources, job_id: str) -> DatasetRow:
    prepare.run(resources, JobMessage(job_id=job_id))
    return job(resources.engine, job_id)


def job(engine: Engine, job_id: str) -> DatasetRow:
    found = read_job(engine, DatasetRow, job_id)
    assert found is not None
    return found


def events(engine: Engine, job_id: str) -> list[str | None]:
    with reading(engine) as connection:
        return list(connection.scalars(select(EventRow.state).where(EventRow.job_id == job_id).order_by(EventRow.no)))


def test_a_submitted_preparation_becomes_a_ready_version(resources: ProcessResources, tmp_path: Path) -> None:
    job_id = submit(resources, write_rows(tmp_path / "a.jsonl"))
    done = run(resources, job_id)
    assert (done.state, done.version, done.repeats, done.error) == ("ready", 1, None, None)
    assert done.splits == {"train": 24, "validation": 3, "test": 3}
    data = resources.settings.data_path
    assert all((data / file).is_file() for file in (done.files or {}).values())
    assert events(resources.engine, job_id) == ["queued", "preparing", "ready"]
    assert not (resources.settings.data_path / "sources" / job_id).exists(), "copies are not kept"
    assert done.finished_at is not None
    assert done.lease_token is None


def test_the_same_again_repeats_and_a_change_makes_a_new_version(resources: ProcessResources, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl")
    first = run(resources, submit(resources, file))
    again = run(resources, submit(resources, file))
    changed = run(resources, submit(resources, file, seed=7))
    other = run(resources, submit(resources, file, name="others"))
    assert (again.version, again.repeats, again.files) == (1, first.id, first.files)
    assert not (resources.settings.data_path / "datasets" / again.id).exists()
    assert (changed.version, changed.repeats) == (2, None)
    assert (other.version, other.repeats, other.fingerprint) == (1, None, first.fingerprint)


def test_a_message_delivered_twice_does_nothing_the_second_time(resources: ProcessResources, tmp_path: Path) -> None:
    job_id = submit(resources, write_rows(tmp_path / "a.jsonl"))
    first = run(resources, job_id)
    assert run(resources, job_id).finished_at == first.finished_at
    assert events(resources.engine, job_id).count("ready") == 1


def test_a_dead_workers_preparation_is_taken_up(resources: ProcessResources, tmp_path: Path) -> None:
    job_id = submit(resources, write_rows(tmp_path / "a.jsonl"))
    with writing(resources.engine) as connection:
        connection.execute(update(DatasetRow).values(state="preparing", lease_token="dead", lease_until=db_now() - 1))
    leftover = resources.settings.data_path / "datasets" / job_id
    leftover.mkdir(parents=True)
    (leftover / "junk").write_text("x")
    assert run(resources, job_id).state == "ready"
    assert not (leftover / "junk").exists()


def test_a_live_lease_is_left_alone(resources: ProcessResources, tmp_path: Path) -> None:
    job_id = submit(resources, write_rows(tmp_path / "a.jsonl"))
    assert claim_job(resources.engine, DatasetRow, job_id, 60)
    assert run(resources, job_id).state == "queued"


def test_a_failure_is_recorded_with_its_reason(resources: ProcessResources, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl")
    file.write_text(file.read_text() + "{broken\n")
    failed = run(resources, submit(resources, file))
    assert (failed.state, failed.error_code) == ("failed", "invalid_input")
    assert "a.jsonl, line 31" in (failed.error or "")
    assert list((resources.settings.data_path / "datasets").iterdir()) == []


@pytest.mark.parametrize(
    "outside",
    [
        "../secret.jsonl",
        "link.jsonl",
        "sources/ID/link.jsonl",
        "sources/ID/folder/secret.jsonl",
        "sources/ID/../../../secret.jsonl",
        "sources/ID/../other/secret.jsonl",
        "ABSOLUTE",
        "file://ABSOLUTE",
        "https://127.0.0.1:1/x.jsonl",
        "s3://bucket/x.jsonl",
        "zip://x.jsonl::ABSOLUTE",
        "labelmill.jsonl",
        "sources/ID",
        "",
        "/etc/passwd",
        "/dev/zero",
    ],
)
def test_a_file_outside_of_the_jobs_own_place_is_never_opened(
    resources: ProcessResources, tmp_path: Path, outside: str
) -> None:
    job_id = submit(resources, write_rows(tmp_path / "a.jsonl"))
    secret = write_rows(tmp_path / "secret.jsonl")
    data = resources.settings.data_path
    write_rows(data / "labelmill.jsonl")
    (data / "sources" / "other").mkdir()
    write_rows(data / "sources" / "other" / "secret.jsonl")
    (data / "link.jsonl").symlink_to(secret)
    (data / "sources" / job_id / "link.jsonl").symlink_to(secret)
    (data / "sources" / job_id / "folder").symlink_to(tmp_path)
    written = outside.replace("ID", job_id).replace("ABSOLUTE", str(secret))
    spec = job(resources.engine, job_id).spec | {"files": [written]}
    with writing(resources.engine) as connection:
        connection.execute(update(DatasetRow).values(spec=spec))
    ended = run(resources, job_id)
    assert ended.state == "failed"
    # a folder of its own, or a URL that is read as a name there, is no file
    assert any(
        words in (ended.error or "") for words in ("not a file inside the data folder", "is gone from the data folder")
    )


def test_a_source_place_that_is_itself_a_link_is_not_followed(resources: ProcessResources, tmp_path: Path) -> None:
    job_id = submit(resources, write_rows(tmp_path / "a.jsonl"))
    place = resources.settings.data_path / "sources" / job_id
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert "not a file inside the data folder" in (run(resources, job_id).error or "")


def test_a_fault_that_passes_is_put_off_and_given_up_in_the_end(
    resources: ProcessResources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object, **__: object) -> None:
        raise RemoteUnavailable("the hub is away", retry_after_s=60)

    monkeypatch.setattr(work, "prepare_dataset", unavailable)
    job_id = submit(resources, write_rows(tmp_path / "a.jsonl"))
    put_off = run(resources, job_id)
    assert (put_off.state, put_off.lease_token) == ("preparing", None)
    assert put_off.next_look_at is not None
    for _ in range(work.MAX_ATTEMPTS):
        last = run(resources, job_id)
    assert (last.state, last.error) == ("failed", "the hub is away")


def test_a_preparation_outlasts_a_storage_that_is_away_for_half_an_hour_and_says_what_it_waits_for(
    resources: ProcessResources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object, **__: object) -> None:
        raise StorageUnavailable("s3://bucket cannot be reached")

    monkeypatch.setattr(work, "prepare_dataset", unavailable)
    job_id = submit(resources, write_rows(tmp_path / "a.jsonl"))
    assert run(resources, job_id).state == "preparing"
    with reading(resources.engine) as connection:
        waiting = status_document(connection, job_id)["waiting_for"]
    assert waiting is not None
    assert waiting["reason"] == "storage_unreachable"
    assert waiting["message"].endswith("s3://bucket cannot be reached")
    assert sum(work.retry_s(attempt) for attempt in range(1, work.MAX_ATTEMPTS)) > 30 * 60


def test_a_lease_outlives_work_longer_than_itself_and_says_when_it_is_lost(
    resources: ProcessResources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease_s = 3.0
    monkeypatch.setattr(lease_keeper, "RENEWALS_PER_LEASE", 60)  # a busy machine may miss most of them
    job_id = submit(resources, write_rows(tmp_path / "a.jsonl"))
    claimed = claim_job(resources.engine, DatasetRow, job_id, lease_s)
    assert claimed
    token = claimed[1]
    assert token
    with LeaseKeeper(resources.engine, DatasetRow, job_id, token, lease_s) as lease:
        first = job(resources.engine, job_id).lease_until or 0

        def much_later() -> bool:
            assert claim_job(resources.engine, DatasetRow, job_id, lease_s) is None, "the lease had run out"
            return (job(resources.engine, job_id).lease_until or 0) > first + lease_s

        wait_until(much_later)
        assert not lease.lost.is_set()
        with writing(resources.engine) as connection:
            connection.execute(update(DatasetRow).values(lease_token="thief"))
        assert lease.lost.wait(60)
    assert not renew_job(resources.engine, DatasetRow, job_id, token, 1)
    assert not [thread for thread in threading.enumerate() if job_id in thread.name]


def test_after_a_freeze_a_lease_is_over_before_its_keeper_wakes(resources: ProcessResources) -> None:
    LeaseKeeper(resources.engine, DatasetRow, "prep_0", "token", 60).check()
    asleep = LeaseKeeper(resources.engine, DatasetRow, "prep_0", "token", 0.0)  # its thread has not run yet
    with pytest.raises(LeaseLost):
        asleep.check()


def test_a_worker_that_lost_its_lease_writes_nothing(
    resources: ProcessResources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = prepare_dataset

    def robbed(*arguments: Any, **named: Any) -> Any:
        with writing(resources.engine) as connection:
            connection.execute(update(DatasetRow).values(lease_token="thief", lease_until=db_now() + 60))
        return real(*arguments, **named)

    monkeypatch.setattr(work, "prepare_dataset", robbed)
    job_id = submit(resources, write_rows(tmp_path / "a.jsonl"))
    after = run(resources, job_id)
    assert (after.state, after.lease_token, after.version) == ("preparing", "thief", None)


def wait_until(condition: Any, timeout_s: float = 60) -> None:
    ends_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends_at, "it did not happen in time"
        time.sleep(0.05)
