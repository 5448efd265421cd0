"""A training's polls against an in-memory Mistral: every state, every refusal, and a crash after every call."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asked import approve, submit_training
from memory_mistral import MemoryMistral
from sqlalchemy import insert, select, update
from sqlalchemy.engine import Engine
from workshop import Killed

from labelmill.contracts.errors import (
    CredentialsRefused,
    FactoryClosed,
    LabelmillError,
    Permanent,
    RateLimited,
    RemoteFailed,
    RemoteUnavailable,
    RequestRefused,
    WorkerUnable,
)
from labelmill.contracts.messages import JobMessage
from labelmill.core.database import connect, db_now, reading, upgrade, writing
from labelmill.core.database.tables import DatasetRow, EventRow, ModelRow, ModelTargetRow, TrainingRow, utc_now
from labelmill.core.jobs.delays import DelayReason
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill.services import models as registry
from labelmill.services.jobs.documents import status_document
from labelmill_worker.mistral.client_config import UnusableConnection
from labelmill_worker.mistral.control_plane import SdkControlPlane
from labelmill_worker.mistral.sdk_requests import SdkRequests
from labelmill_worker.ports.control_plane import (
    ControlPlane,
    RemoteEvent,
    RemoteFile,
)
from labelmill_worker.store.delays import note_delay
from labelmill_worker.store.faults import MAX_FAULTS
from labelmill_worker.store.uploaded_files import trainings_with_files
from labelmill_worker.train.poller import TrainingPoller

SCHEMA = [{"name": "intent", "labels": ["music", "weather"], "multi": False}]


class Outbox(MessageSender):
    """Keeps messages instead of sending them."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, float | None]] = []

    def send(self, task: str, messages: Any, *, priority: str = "normal", countdown_s: float | None = None) -> None:
        del task, priority
        self.sent += [(message.job_id, countdown_s) for message in messages if isinstance(message, JobMessage)]


class Bench:
    """A database with one dataset, a Mistral in memory, and a worker that polls when told."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.mistral, self.outbox = engine, MemoryMistral(), Outbox()
        self.settings = Settings(data_dir=str(folder), poll_s=1.0, lease_s=5.0, _env_file=None)
        self.plane: Callable[[], ControlPlane] = lambda: self.mistral
        files = {split: f"datasets/prep_00000000aa/{split}.jsonl" for split in ("train", "validation")}
        (folder / "datasets/prep_00000000aa").mkdir(parents=True)
        for split, reference in files.items():
            (folder / reference).write_text(f'{{"text": "{split}", "labels": {{"intent": "music"}}}}\n')
        with writing(engine) as connection:
            connection.execute(
                insert(DatasetRow).values(
                    id="prep_00000000aa",
                    state="ready",
                    name="small",
                    version=1,
                    spec={},
                    label_schema=SCHEMA,
                    splits={"train": 1, "validation": 1, "test": 0},
                    fingerprint="f1",
                    files=files,
                )
            )

    def submit(self, **options: Any) -> str:
        return submit_training(
            self.engine, self.outbox, **{"name": "intents", "dataset": "small", "method": "factory", **options}
        )

    def poll(self, training_id: str) -> None:
        """One poll, as if the wait before it were over."""
        with writing(self.engine) as connection:
            connection.execute(update(TrainingRow).values(due_at=None))
        self.poller().poll(training_id)

    def poller(self) -> TrainingPoller:
        return TrainingPoller(self.engine, self.outbox, self.plane, self.settings, rng=random.Random(1))

    def look_until_it_stops(self, training_id: str, most: int = 40) -> TrainingRow:
        for _ in range(most):
            self.poll(training_id)
            if self.row(training_id).state in ("succeeded", "failed", "cancelled", "awaiting_approval"):
                break
        return self.row(training_id)

    def row(self, training_id: str) -> TrainingRow:
        with reading(self.engine) as connection:
            found = connection.execute(select(TrainingRow.__table__).where(TrainingRow.id == training_id))
            return TrainingRow(**found.mappings().one())

    def history(self, training_id: str) -> list[str]:
        with reading(self.engine) as connection:
            found = select(EventRow.message).where(EventRow.job_id == training_id).order_by(EventRow.no)
            return list(connection.scalars(found))

    def change(self, **values: Any) -> None:
        with writing(self.engine) as connection:
            connection.execute(update(TrainingRow).values(**values))

    def forget_lease(self) -> None:
        """The dead worker's lease runs out."""
        self.change(lease_until=0.0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    engine = connect(f"sqlite:///{tmp_path}/test.db")
    upgrade(engine)
    yield Bench(engine, tmp_path)
    engine.dispose()


def test_a_training_becomes_a_promoted_version_with_targets_cost_and_checkpoints(bench: Bench) -> None:
    training_id = bench.submit(yes=True, steps=250, learning_rate=0.001)
    row = bench.look_until_it_stops(training_id)
    assert (row.state, row.cost) == ("succeeded", {"amount": 4.5, "currency": "EUR"})
    assert row.estimate is not None
    assert row.estimate["train_tokens"] == 10
    assert row.checkpoints == [{"step": 10, "train_loss": 0.5, "valid_loss": 0.6}]
    assert (bench.mistral.orders[0].steps, bench.mistral.orders[0].learning_rate) == (250, 0.001)
    assert bench.mistral.orders[0].validation_files
    with reading(bench.engine) as connection:
        model = connection.execute(select(ModelRow.__table__)).one()
        targets = connection.execute(select(ModelTargetRow.target, ModelTargetRow.name)).all()
    assert (model.name, model.version, model.promoted, model.label_schema) == ("intents", 1, True, SCHEMA)
    assert (model.remote_model, model.dataset_fingerprint) == ("ft:classifier:job-0", "f1")
    assert [tuple(target) for target in targets] == [(0, "intent")]
    history = bench.history(training_id)
    assert history.count("Mistral: status-updated RUNNING") == 1
    assert history[-1] == "made intents@1, promoted"


def test_the_second_training_of_a_name_makes_version_two_unpromoted(bench: Bench) -> None:
    for _ in range(2):
        bench.mistral.ahead, bench.mistral.after_start = ["VALIDATED"], ["SUCCESS"]
        assert bench.look_until_it_stops(bench.submit(yes=True)).state == "succeeded"
    with reading(bench.engine) as connection:
        found = connection.execute(select(ModelRow.version, ModelRow.promoted).order_by(ModelRow.version)).all()
    assert [tuple(row) for row in found] == [(1, True), (2, False)]


def test_a_name_without_a_version_in_use_gives_its_name_to_the_next_one(bench: Bench) -> None:
    for retire in (registry.delete, registry.archive):
        bench.mistral.ahead, bench.mistral.after_start = ["VALIDATED"], ["SUCCESS"]
        assert bench.look_until_it_stops(bench.submit(yes=True)).state == "succeeded"
        with writing(bench.engine) as connection:
            ref = registry.ref_of(registry.resolve_model(connection, "intents"))
            retire(connection, ref)
    assert ref == "intents@2"


@pytest.mark.parametrize(
    ("options", "state"),
    [
        ({}, "awaiting_approval"),
        ({"yes": True}, "succeeded"),
        ({"max_cost": 4.49}, "awaiting_approval"),
        ({"max_cost": 4.49, "yes": True}, "awaiting_approval"),
        ({"max_cost": 4.5}, "succeeded"),
    ],
)
def test_nothing_is_spent_beyond_what_was_allowed(bench: Bench, options: dict[str, Any], state: str) -> None:
    row = bench.look_until_it_stops(bench.submit(**options))
    assert row.state == state
    assert len(bench.mistral.starts) == (1 if state == "succeeded" else 0)


def test_an_approved_training_goes_on_to_its_end(bench: Bench) -> None:
    training_id = bench.submit()
    bench.look_until_it_stops(training_id)
    approve(bench.engine, bench.outbox, training_id)
    assert bench.outbox.sent[-1] == (training_id, None)
    assert bench.look_until_it_stops(training_id).state == "succeeded"
    assert bench.mistral.starts == ["job-0"]


CALLS = ["find_files", "upload_file", "find_job", "create_job", "get_job", "start_job", "find_files_of", "delete_file"]


@pytest.mark.parametrize("nth", range(1, 4))
@pytest.mark.parametrize("name", CALLS)
def test_a_worker_killed_after_any_call_costs_no_second_job_and_no_second_upload(
    bench: Bench, name: str, nth: int
) -> None:
    seen = 0

    def kill(called: str) -> None:
        nonlocal seen
        seen += called == name
        if called == name and seen == nth:
            raise Killed

    bench.mistral.after_call = kill
    training_id = bench.submit(yes=True)
    for _ in range(40):
        try:
            bench.poll(training_id)
        except Killed:
            bench.forget_lease()
    assert bench.row(training_id).state == "succeeded"
    assert len(bench.mistral.orders) == len(bench.mistral.starts) == 1
    assert sorted(bench.mistral.uploads) == [f"{training_id}-train.jsonl", f"{training_id}-validation.jsonl"]
    assert bench.mistral.files == {}


@pytest.mark.parametrize("name", CALLS)
def test_an_answer_that_got_lost_is_looked_for_and_not_asked_for_again(bench: Bench, name: str) -> None:
    lost: list[str] = []

    def lose(called: str) -> None:
        if called == name and not lost:
            lost.append(called)
            raise RemoteUnavailable("connection cut")

    bench.mistral.after_call = lose
    training_id = bench.submit(yes=True)
    row = bench.look_until_it_stops(training_id)
    assert (row.state, lost) == ("succeeded", [name])
    assert len(bench.mistral.orders) == len(bench.mistral.starts) == 1
    assert len(bench.mistral.uploads) == 2
    if bench.mistral.files:  # their deletion got no answer
        bench.poll(training_id)
    assert bench.mistral.files == {}


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_a_training_that_is_given_up_leaves_no_file_at_mistral(bench: Bench, end: str) -> None:
    training_id = bench.submit()
    assert bench.look_until_it_stops(training_id).state == "awaiting_approval"
    assert len(bench.mistral.files) == 2
    bench.mistral.files["other"] = RemoteFile("other", f"{training_id}0-train.jsonl", 1)
    bench.change(**{"cancel_requested": True} if end == "cancelled" else {"error": "given up", "error_code": "error"})
    bench.poll(training_id)
    assert bench.row(training_id).state == end
    assert list(bench.mistral.files) == ["other"]
    assert bench.row(training_id).remote_files is None


def test_a_file_whose_upload_got_no_answer_is_deleted_too(bench: Bench) -> None:
    def lose(called: str) -> None:
        if called == "upload_file":
            bench.change(cancel_requested=True)
            raise RemoteUnavailable("connection cut")

    bench.mistral.after_call = lose
    training_id = bench.submit()
    bench.look_until_it_stops(training_id)
    assert bench.row(training_id).state == "cancelled"
    assert len(bench.mistral.uploads) == 1
    assert bench.mistral.files == {}


@pytest.mark.parametrize(
    ("error", "pause_s"),
    [(RequestRefused("the file is in use", 422), 3600), (RemoteUnavailable("conflict"), 300), (Permanent("no"), 3600)],
)
def test_a_file_that_cannot_be_deleted_keeps_no_other_one_at_mistral(
    bench: Bench, error: LabelmillError, pause_s: float
) -> None:
    training_id = training_awaiting_approval(bench)
    refused: list[str] = []

    def refuse_first(name: str) -> None:
        if name == "delete_file" and not refused:
            refused.append(name)
            raise error

    bench.mistral.before_call = refuse_first
    bench.poll(training_id)
    assert (bench.row(training_id).state, len(bench.mistral.files)) == ("cancelled", 1)
    assert trainings_with_files(bench.engine) == []
    with reading(bench.engine) as connection:
        wait_s = connection.scalar(select(TrainingRow.next_look_at - db_now()))
    assert wait_s == pytest.approx(pause_s, abs=60)
    bench.poll(training_id)
    assert (bench.mistral.files, bench.row(training_id).remote_files) == ({}, None)


def test_a_limit_that_is_reached_while_files_are_deleted_is_kept(bench: Bench) -> None:
    training_id = training_awaiting_approval(bench)
    asked: list[str] = []

    def hold_back(name: str) -> None:
        if name == "delete_file":
            asked.append(name)
            raise RateLimited("slow down", 900.0)

    bench.mistral.before_call = hold_back
    bench.poll(training_id)
    assert len(asked) == 1
    bench.change(next_look_at=TrainingRow.next_look_at - 800)
    assert trainings_with_files(bench.engine) == []


def test_files_wait_for_a_worker_with_a_key(bench: Bench) -> None:
    training_id = bench.submit()
    bench.look_until_it_stops(training_id)
    bench.change(cancel_requested=True)

    def without_key() -> ControlPlane:
        raise CredentialsRefused("no key")

    with writing(bench.engine) as connection:
        connection.execute(update(TrainingRow).values(state="cancelled", finished_at=utc_now(), next_look_at=None))
    bench.plane = without_key
    bench.poll(training_id)
    assert len(bench.mistral.files) == 2
    assert bench.row(training_id).lease_token is None
    assert trainings_with_files(bench.engine) == []
    bench.change(next_look_at=1.0)
    assert trainings_with_files(bench.engine) == [training_id]
    bench.plane = lambda: bench.mistral
    bench.poll(training_id)
    assert bench.mistral.files == {}
    assert trainings_with_files(bench.engine) == []


def test_a_refusal_by_validation_ends_with_mistrals_own_reason(bench: Bench) -> None:
    bench.mistral.ahead = ["FAILED_VALIDATION"]
    reason = RemoteEvent("status-updated", 1, {"status": "FAILED_VALIDATION", "error": "line 3 has no labels"})
    create = bench.mistral._moved
    bench.mistral._moved = lambda job, status: replace(create(job, status), events=(reason,))  # type: ignore[method-assign]
    row = bench.look_until_it_stops(bench.submit(yes=True))
    assert (row.state, row.error_code) == ("failed", "remote_failed")
    assert "line 3 has no labels" in (row.error or "")
    assert bench.mistral.starts == []


@pytest.mark.parametrize(("status", "state"), [("FAILED", "failed"), ("CANCELLED", "cancelled")])
def test_a_run_that_ends_badly_at_mistral_ends_here_too(bench: Bench, status: str, state: str) -> None:
    bench.mistral.after_start = ["RUNNING", status]
    row = bench.look_until_it_stops(bench.submit(yes=True))
    assert row.state == state
    assert row.error


def test_an_unknown_status_is_polled_on(bench: Bench) -> None:
    bench.mistral.after_start = ["REHEATING", "RUNNING", "SUCCESS"]
    assert bench.look_until_it_stops(bench.submit(yes=True)).state == "succeeded"


def test_a_job_that_vanished_fails_with_a_clear_reason(bench: Bench) -> None:
    training_id = bench.submit(yes=True)
    bench.poll(training_id)
    bench.mistral.jobs.clear()
    row = bench.look_until_it_stops(training_id)
    assert row.state == "failed"
    assert "no longer knows this training's job job-0" in (row.error or "")


@pytest.mark.parametrize(
    "error",
    [CredentialsRefused("there is no Mistral key: set MISTRAL_API_KEY"), UnusableConnection("ALL_PROXY: no SOCKS")],
)
def test_what_keeps_a_worker_from_mistral_fails_a_training_before_it_runs_and_not_one_that_is_paid_for(
    bench: Bench, error: WorkerUnable
) -> None:
    def refuse() -> ControlPlane:
        raise error

    training_id = bench.submit(yes=True)
    while bench.row(training_id).state != "running":
        bench.poll(training_id)
    other_id = bench.submit(yes=True)
    bench.plane = refuse
    bench.poll(training_id)
    bench.poll(other_id)
    assert bench.row(training_id).state == "running"
    assert (bench.row(other_id).state, bench.row(other_id).error) == ("failed", error.message)
    assert bench.row(other_id).error_code == error.code


def test_a_fault_that_passes_is_tried_again_not_before_mistral_says(bench: Bench) -> None:
    def hold_back(name: str) -> None:
        raise RateLimited("slow down", 30.0)

    bench.mistral.before_call = hold_back
    training_id = bench.submit(yes=True)
    bench.poll(training_id)
    row = bench.row(training_id)
    assert (row.state, row.lease_token) == ("queued", None)
    assert bench.outbox.sent[-1][1] == pytest.approx(30.0)


def test_where_mistral_no_longer_fine_tunes_no_text_is_uploaded(bench: Bench) -> None:
    def closed(name: str) -> None:
        if name == "check_factory":
            raise FactoryClosed("train with --method embedding")

    bench.mistral.before_call = closed
    training_id = bench.submit(yes=True)
    bench.poll(training_id)
    row = bench.row(training_id)
    assert (row.state, row.error) == ("failed", "train with --method embedding")
    assert not bench.mistral.files


def _waiting_for(bench: Bench, training_id: str) -> str | None:
    with reading(bench.engine) as connection:
        found = status_document(connection, training_id)["waiting_for"]
    return found and f"{found['reason']}: {found['message']}"


def test_why_mistral_cannot_be_reached_is_told_until_a_look_succeeds(bench: Bench) -> None:
    """By the control plane itself, whose circuit opens after some faults and must not hide the reason."""
    away = SdkControlPlane(SdkRequests("key", "http://127.0.0.1:9", timeout_s=5, sleep=lambda _: None))
    training_id = bench.submit(yes=True)
    bench.plane = lambda: away
    try:
        for _ in range(6):
            bench.poll(training_id)
            said = _waiting_for(bench, training_id) or ""
            assert said.startswith("mistral_unreachable: ")
            assert "Connection refused" in said
    finally:
        away.close()
    assert "requests in a row" in said
    bench.plane = lambda: bench.mistral
    bench.poll(training_id)
    assert _waiting_for(bench, training_id) is None


def test_a_delay_that_another_worker_met_ends_with_a_look_that_succeeds(bench: Bench) -> None:
    training_id = bench.submit(yes=True)
    bench.change(attempts=1)
    note_delay(bench.engine, "other", training_id, DelayReason.MISTRAL, "timeout", since_s=0, valid_s=60)
    assert _waiting_for(bench, training_id)
    bench.poll(training_id)
    assert _waiting_for(bench, training_id) is None


def test_a_training_that_is_given_up_says_what_keeps_its_job_from_being_cancelled(bench: Bench) -> None:
    training_id = job_that_runs_on(bench)

    def fault(name: str) -> None:
        if bench.row(training_id).error is None:
            raise Permanent("Mistral refused (status 402)")
        raise RemoteUnavailable("Mistral cannot be reached: Connection refused")

    bench.mistral.before_call = fault
    bench.poll(training_id)
    assert bench.row(training_id).state == "running"
    assert "Connection refused" in (_waiting_for(bench, training_id) or "")


def test_each_look_asks_for_one_next_look_and_a_second_copy_of_the_message_for_none(bench: Bench) -> None:
    training_id = bench.submit(yes=True)
    bench.poll(training_id)
    sent = len(bench.outbox.sent)
    bench.poller().poll(training_id)
    assert len(bench.outbox.sent) == sent
    assert bench.outbox.sent[-1] == (training_id, 1.0)


def test_a_training_that_another_worker_has_claimed_is_left_alone(bench: Bench) -> None:
    training_id = bench.submit(yes=True)
    with writing(bench.engine) as connection:
        connection.execute(update(TrainingRow).values(lease_token="other", lease_until=db_now() + 60))
    bench.poll(training_id)
    assert bench.row(training_id).state == "queued"
    assert bench.mistral.files == {}


def test_a_lease_lost_before_the_job_is_created_creates_none(bench: Bench) -> None:
    def take_over(name: str) -> None:
        if name == "find_job":
            bench.change(lease_token="other", lease_until=9e9)

    bench.mistral.after_call = take_over
    bench.poll(bench.submit(yes=True))
    assert bench.mistral.orders == []


def job_that_runs_on(bench: Bench) -> str:
    """A training whose job runs, and changes no more."""
    bench.mistral.after_start = ["RUNNING"]
    training_id = bench.submit(yes=True)
    while bench.row(training_id).remote_status != "RUNNING":
        bench.poll(training_id)
    return training_id


def test_a_cancelled_training_is_cancelled_at_mistral_and_says_so(bench: Bench) -> None:
    training_id = job_that_runs_on(bench)
    bench.change(cancel_requested=True)
    row = bench.look_until_it_stops(training_id)
    assert (row.state, bench.mistral.cancels) == ("cancelled", ["job-0"])


def training_awaiting_approval(bench: Bench) -> str:
    """A training that was cancelled while it waits for approval."""
    training_id = bench.submit()
    assert bench.look_until_it_stops(training_id).state == "awaiting_approval"
    bench.change(cancel_requested=True)
    return training_id


@pytest.mark.parametrize("call", ["get_job", "cancel_job"])
@pytest.mark.parametrize(
    "error",
    [
        FactoryClosed("no longer"),
        RemoteFailed("Mistral knows no such thing (status 404)"),
        Permanent("Mistral refused (status 402)"),
        CredentialsRefused("not this key"),
        RemoteUnavailable("away"),
    ],
)
def test_a_cancel_before_anything_was_started_needs_no_answer_of_mistrals(
    bench: Bench, call: str, error: LabelmillError
) -> None:
    training_id = training_awaiting_approval(bench)

    def refuse(name: str) -> None:
        if name == call:
            raise error

    bench.mistral.before_call = refuse
    for _ in range(5):
        bench.poll(training_id)
    row = bench.row(training_id)
    assert (row.state, row.error) == ("cancelled", None)
    assert bench.mistral.files == {}


def test_a_cancelled_training_whose_job_cannot_be_looked_for_is_cancelled(bench: Bench) -> None:
    def lose(name: str) -> None:
        if name == "create_job":
            bench.change(cancel_requested=True)
            raise RemoteUnavailable("connection cut")

    def close(name: str) -> None:
        if name == "find_job" and bench.mistral.orders:
            raise FactoryClosed("no longer")

    bench.mistral.after_call, bench.mistral.before_call = lose, close
    training_id = bench.submit(yes=True)
    assert bench.look_until_it_stops(training_id).state == "cancelled"


def test_a_single_fault_does_not_end_a_cancel_before_mistral_was_asked(bench: Bench) -> None:
    training_id = training_awaiting_approval(bench)
    faults = [RemoteUnavailable("away")]

    def fail_once(name: str) -> None:
        if name == "get_job" and faults:
            raise faults.pop()

    bench.mistral.before_call = fail_once
    assert bench.look_until_it_stops(training_id, most=1).state == "awaiting_approval"
    bench.poll(training_id)
    assert (bench.row(training_id).state, bench.mistral.cancels) == ("cancelled", ["job-0"])


def test_a_job_that_was_started_by_hand_is_stopped_at_mistral_before_its_training_is_cancelled(bench: Bench) -> None:
    training_id = training_awaiting_approval(bench)
    bench.mistral.ahead = ["RUNNING"]
    asked: list[str] = []

    def fail_once(name: str) -> None:
        if name == "cancel_job" and not asked:
            asked.append(name)
            raise RemoteUnavailable("away")

    bench.mistral.before_call = fail_once
    bench.poll(training_id)
    assert bench.row(training_id).state == "running"
    bench.poll(training_id)
    assert (bench.row(training_id).state, bench.mistral.cancels) == ("cancelled", ["job-0"])


def test_a_cancel_that_comes_after_success_keeps_the_model_that_was_paid_for(bench: Bench) -> None:
    training_id = bench.submit(yes=True)
    while bench.row(training_id).remote_status != "RUNNING":
        bench.poll(training_id)
    bench.change(cancel_requested=True)
    assert bench.look_until_it_stops(training_id).state == "succeeded"


def test_a_training_cancelled_before_it_began_sends_nothing(bench: Bench) -> None:
    training_id = bench.submit(yes=True)
    bench.change(state="cancelled")
    bench.poll(training_id)
    assert bench.mistral.files == {}


def test_a_job_without_any_change_for_a_day_is_cancelled_and_fails(bench: Bench) -> None:
    training_id = job_that_runs_on(bench)
    day_s = timedelta(hours=25).total_seconds()
    bench.change(changed_at=TrainingRow.changed_at - day_s)
    row = bench.look_until_it_stops(training_id, most=1)
    assert (row.state, bench.mistral.cancels) == ("failed", ["job-0"])
    assert "25 hours" in (row.error or "")


def look_with_faults(bench: Bench, training_id: str, most: int = 40) -> TrainingRow:
    """As a worker does: a poll that ends with a fault is logged, and the next one comes."""
    for _ in range(most):
        with contextlib.suppress(ZeroDivisionError):
            bench.poll(training_id)
        if bench.row(training_id).state in ("succeeded", "failed", "cancelled"):
            break
    return bench.row(training_id)


def test_a_training_with_a_fault_of_ours_is_given_up_and_its_job_cancelled_first(bench: Bench) -> None:
    training_id = job_that_runs_on(bench)
    calls: list[str] = []

    def fault(name: str) -> None:
        calls.append(name)
        if calls.count("get_job") <= MAX_FAULTS:
            raise ZeroDivisionError

    bench.mistral.before_call = fault
    row = look_with_faults(bench, training_id)
    assert (row.state, row.error_code, bench.mistral.cancels) == ("failed", "unexpected", ["job-0"])
    assert "ZeroDivisionError, 5 times" in (row.error or "")
    assert calls.count("get_job") == MAX_FAULTS + 1


def test_a_job_that_cannot_be_cancelled_now_is_cancelled_later(bench: Bench) -> None:
    training_id = job_that_runs_on(bench)
    refused = 0

    def fault(name: str) -> None:
        nonlocal refused
        if name == "cancel_job" and refused < 3:
            refused += 1
            raise RemoteUnavailable("away") if refused < 2 else CredentialsRefused("not this key")
        if name == "get_job" and bench.row(training_id).error is None:
            raise ZeroDivisionError

    bench.mistral.before_call = fault
    row = look_with_faults(bench, training_id)
    assert (row.state, row.error_code, bench.mistral.cancels) == ("failed", "unexpected", ["job-0"])


def test_a_job_that_no_worker_can_cancel_is_named(bench: Bench) -> None:
    training_id = job_that_runs_on(bench)

    def fault(name: str) -> None:
        raise ZeroDivisionError

    bench.mistral.before_call = fault
    row = look_with_faults(bench, training_id)
    assert row.state == "failed"
    assert "its job job-0 at Mistral could not be cancelled: cancel it there" in (row.error or "")


def test_a_training_that_ends_with_a_refusal_leaves_no_job_running(bench: Bench) -> None:
    training_id = job_that_runs_on(bench)

    def refuse(name: str) -> None:
        if name == "get_job" and bench.row(training_id).error is None:
            raise Permanent("Mistral refused (status 402)")

    bench.mistral.before_call = refuse
    row = bench.look_until_it_stops(training_id)
    assert (row.state, row.error, bench.mistral.cancels) == ("failed", "Mistral refused (status 402)", ["job-0"])


def test_faults_with_progress_between_them_end_no_training(bench: Bench) -> None:
    training_id = bench.submit(yes=True)
    names: list[str] = []

    def fault(name: str) -> None:
        names.append(name)
        if names.count(name) <= 1:  # each call fails once, and then is good: more faults than end a training in a row
            raise ZeroDivisionError

    bench.mistral.before_call = fault
    assert look_with_faults(bench, training_id).state == "succeeded"
    assert bench.mistral.cancels == []


def test_a_day_in_which_no_worker_ran_is_not_held_against_the_job(bench: Bench) -> None:
    training_id = job_that_runs_on(bench)
    day_s = timedelta(hours=25).total_seconds()
    bench.change(changed_at=TrainingRow.changed_at - day_s, due_at=1_000_000_000.0)
    bench.poller().poll(training_id)
    assert bench.row(training_id).state == "running"


def test_a_clock_that_was_set_back_keeps_no_training_waiting(bench: Bench) -> None:
    training_id = bench.submit(yes=True)
    bench.poll(training_id)
    sent = len(bench.outbox.sent)
    bench.change(due_at=TrainingRow.due_at + timedelta(hours=2).total_seconds())
    bench.poller().poll(training_id)
    assert len(bench.outbox.sent) == sent + 1
