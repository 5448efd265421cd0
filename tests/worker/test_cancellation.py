"""A job is cancelled right after any single commit of its worker: it stays cancelled, its batches end with it, and
nothing is written about it any more."""

from __future__ import annotations

import ast
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asked import cancel, retry, submit_evaluation, submit_training
from sqlalchemy import event, func, insert, select, update
from strict_mistral import StrictMistral
from workshop import SCHEMA, Workshop, intent_rows, open_workshop

import labelmill_worker
from labelmill.contracts.errors import CredentialsRefused, InvalidInput, MonthlyLimitReached
from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.states import DatasetState, EvaluationState
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import (
    BatchRow,
    ChunkInputRow,
    ChunkRow,
    DatasetRow,
    EvaluationRow,
    EventRow,
    ModelRow,
    TrainingRow,
)
from labelmill_worker.store import jobs
from labelmill_worker.store.chunks import Claim, stop_batch
from labelmill_worker.store.lease_keeper import LeaseKeeper
from labelmill_worker.train import embedding
from labelmill_worker.train.heads import fit

pytestmark = pytest.mark.timeout(170)

MOST_COMMITS = 120


class AfterCommit:
    """Does something once, right after the `number`th commit of this thread that leaves it without a transaction."""

    def __init__(self, shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
        self._thread = threading.current_thread()
        self._original = shop.engine.dialect.do_commit
        self._left, self._open = 0, 0
        self._act: Callable[[], None] = lambda: None
        monkeypatch.setattr(shop.engine.dialect, "do_commit", self._commit)
        event.listen(shop.engine, "begin", lambda connection: self._count(1))
        event.listen(shop.engine, "rollback", lambda connection: self._count(-1))

    def at(self, number: int, act: Callable[[], None]) -> None:
        self._left, self._act = number, act

    def _count(self, change: int) -> bool:
        mine = threading.current_thread() is self._thread
        self._open += change if mine else 0
        return mine

    def _commit(self, connection: Any) -> None:
        self._original(connection)
        if self._count(-1) and self._left and not self._open:
            self._left -= 1
            if not self._left:
                self._act()


@pytest.fixture
def shop(sqlite_template: Path, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    (tmp_path / "l.db").write_bytes(sqlite_template.read_bytes())
    with open_workshop(f"sqlite:///{tmp_path}/l.db", mistral, redis_url, tmp_path) as made:
        yield made


def empty_the_queue(shop: Workshop) -> None:
    while shop.queue.waiting:
        with writing(shop.engine) as connection:  # no poll waits for its time here
            connection.execute(update(TrainingRow).values(due_at=None))
        shop.step()


def cancel_after_each_commit(shop: Workshop, commits: AfterCommit, submit: Callable[[int], str]) -> int:
    """Returns how many commits a job has that can be cancelled after them."""
    for number in range(1, MOST_COMMITS):
        job_id, too_late, batches = submit(number), [], []

        def cancel_it(job_id: str = job_id, too_late: list[str] = too_late, batches: list[int] = batches) -> None:
            try:
                cancel(shop.engine, shop.sender, job_id)
            except InvalidInput as error:
                too_late.append(error.message)
            batches.append(count_batches(shop))

        commits.at(number, cancel_it)
        empty_the_queue(shop)
        if too_late or not batches:
            return number - 1
        assert shop.status(job_id)["state"] == "cancelled", number
        with reading(shop.engine) as connection:
            history = connection.scalars(select(EventRow.message).where(EventRow.job_id == job_id)).all()
            runnable_batches = select(BatchRow.id).where(BatchRow.state.in_(("submitting", "queued", "running")))
            assert not connection.scalars(runnable_batches).all(), number
        assert history[-1] == "cancelled by a person", (number, history)
        assert count_batches(shop) == batches[0], number
    raise AssertionError("a job has fewer commits than that")


def count_batches(shop: Workshop) -> int:
    with reading(shop.engine) as connection:
        return int(connection.scalar(select(func.count()).select_from(BatchRow)) or 0)


@pytest.mark.slow
def test_an_evaluation_that_is_cancelled_after_any_commit_begins_nothing_more(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = shop.dataset(
        "d", SCHEMA, train=intent_rows("t", 8), validation=intent_rows("v", 12), test=intent_rows("e", 24)
    )
    shop.model("m", SCHEMA, dataset_id=dataset)

    def submit(number: int) -> str:
        del number
        return submit_evaluation(shop.engine, shop.sender, model="m", dataset="d", calibrate=True)

    assert cancel_after_each_commit(shop, AfterCommit(shop, monkeypatch), submit) > 8


@pytest.mark.slow
def test_a_training_by_vectors_that_is_cancelled_after_any_commit_makes_no_model(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "STRENGTHS", (2048.0, 1.0, 1.0))
    monkeypatch.setattr(fit, "WEAKER", ())

    def submit(number: int) -> str:
        name = f"m{number}"
        shop.dataset(name, SCHEMA, train=intent_rows(name, 24), validation=intent_rows(f"{name} v", 8))
        return submit_training(shop.engine, shop.sender, name=name, dataset=name, method="embedding", yes=True)

    commits = cancel_after_each_commit(shop, AfterCommit(shop, monkeypatch), submit)
    assert commits > 8
    with reading(shop.engine) as connection:
        made = select(ModelRow.name).where(ModelRow.method == "embedding")
        assert connection.scalars(made).all() == [f"m{commits + 1}"]
    assert len(list((shop.folder / "models").iterdir())) == 1


def test_a_training_that_is_cancelled_while_its_head_is_fitted_stops_the_fit_and_leaves_no_file(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.dataset("d", SCHEMA, train=intent_rows("t", 24), validation=intent_rows("v", 8))
    job_id = submit_training(shop.engine, shop.sender, name="m", dataset="d", method="embedding", yes=True)
    keepers: list[LeaseKeeper[Any]] = []
    original, enter = embedding.fit_head, LeaseKeeper.__enter__

    def enter_noted(keeper: LeaseKeeper[Any]) -> LeaseKeeper[Any]:
        keepers.append(keeper)
        return enter(keeper)

    def fit_as_a_person_cancels(*arguments: Any, **options: Any) -> Any:
        cancel(shop.engine, shop.sender, job_id)
        keepers[-1].lost.set()  # what the thread that renews the lease finds out within a third of it
        try:
            return original(*arguments, **options)
        finally:
            stopped.append(True)

    stopped: list[bool] = []
    monkeypatch.setattr(LeaseKeeper, "__enter__", enter_noted)
    monkeypatch.setattr(embedding, "fit_head", fit_as_a_person_cancels)
    empty_the_queue(shop)
    assert stopped
    assert shop.status(job_id)["state"] == "cancelled"
    assert not list((shop.folder / "models").iterdir())


def claimed_batch(shop: Workshop, state: str) -> tuple[str, Claim]:
    """A batch of one chunk, and a worker's claim on that."""
    model = shop.model("m", SCHEMA)
    batch_id = new_id(Kind.BATCH)
    with writing(shop.engine) as connection:
        values = {"id": batch_id, "state": state, "model_no": model, "model_ref": "m", "options": {}}
        batch = connection.execute(insert(BatchRow).values(values).returning(BatchRow.no)).scalar_one()
        chunk = {"batch_no": batch, "number": 0, "state": "claimed", "first_row": 0, "rows": 1, "texts": 1}
        connection.execute(insert(ChunkRow).values(chunk | {"lease_token": "before", "lease_until": 1e11}))
        connection.execute(insert(ChunkInputRow).values(batch_no=batch, number=0, data=b""))
    claim = Claim(batch, batch_id, 0, "before", 0, 1, "normal", {}, None, None, frozenset())  # type: ignore[arg-type]
    return batch_id, claim


def test_a_batch_that_was_retried_is_not_stopped_by_a_worker_of_before(shop: Workshop) -> None:
    batch_id, claim = claimed_batch(shop, "failed")
    retry(shop.engine, shop.sender, batch_id)
    stop_batch(shop.engine, claim, CredentialsRefused("the key of before"))
    assert shop.status(batch_id)["state"] == "running"


def test_a_batch_that_reaches_a_budget_is_paused_until_it_is_retried(shop: Workshop) -> None:
    batch_id, claim = claimed_batch(shop, "running")
    stop_batch(shop.engine, claim, MonthlyLimitReached("no tokens are left this month"))
    document = shop.status(batch_id)
    assert (document["state"], document["error_code"]) == ("paused", "monthly_limit")
    assert document["error"] == "no tokens are left this month"
    retry(shop.engine, shop.sender, batch_id)
    assert shop.status(batch_id)["state"] == "running"


@pytest.mark.parametrize("state", list(DatasetState) + list(EvaluationState))
def test_a_worker_writes_to_open_jobs_alone(shop: Workshop, state: DatasetState | EvaluationState) -> None:
    model = shop.model("m", SCHEMA)
    held = {"state": state.value, "lease_token": "mine", "lease_until": 1e11}
    with writing(shop.engine) as connection:
        connection.execute(insert(DatasetRow).values(id="prep_0000000001", name="d", spec={}, **held))
        connection.execute(
            insert(EvaluationRow).values(
                id="eval_0000000001",
                model_no=model,
                model_ref="m",
                dataset_id="d",
                dataset_ref="d",
                split="test",
                **held,
            )
        )
    is_open = state.value in ("queued", "preparing", "running")
    table: Any = DatasetRow if isinstance(state, DatasetState) else EvaluationRow
    job_id = "prep_0000000001" if table is DatasetRow else "eval_0000000001"
    assert jobs.save_job(shop.engine, table, job_id, "mine", attempts=7) is is_open
    assert jobs.renew_job(shop.engine, table, job_id, "mine", 5) is is_open
    assert not jobs.save_job(shop.engine, table, job_id, "another's", attempts=8)


def test_no_module_writes_to_jobs_past_the_one_that_asks_for_the_lease() -> None:
    """A dataset, training or evaluation is changed through `core/jobs` under the lease; recovery writes beside it, also
    to ended trainings whose files are to be deleted, and faults are counted."""
    job_tables = {"DatasetRow", "TrainingRow", "EvaluationRow", "table"}
    may = {"store/stalled.py", "store/faults.py", "store/uploaded_files.py"}
    folder = Path(labelmill_worker.__file__).parent
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "update"
            if called and isinstance(node.args[0], ast.Name) and node.args[0].id in job_tables:
                found.add(str(path.relative_to(folder)))
    assert found == may
