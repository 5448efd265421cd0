"""Claims, leases, records, hand-backs and retries in any order, against a model: two never win, sums always hold.

Steps are chosen by hypothesis, time passes by explicit steps: a worker that "freezes" simply acts again later.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from asked import cancel, retry
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import insert, text, update

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.job_kinds import moves_to, states_before
from labelmill.contracts.states import BatchState, ChunkState
from labelmill.core.chunks.sizes import ChunkSizes
from labelmill.core.chunks.writer import BatchWriter
from labelmill.core.database import connect, reading, writing
from labelmill.core.database.tables import BatchRow, ChunkRow, ModelRow, ModelTargetRow
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings
from labelmill.services.jobs.documents import status_document
from labelmill_worker.store.chunks import Claim, claim_chunk, complete_batch, release_chunk
from labelmill_worker.store.predictions import PredictionBlock
from labelmill_worker.store.progress import ChunkProgress, record_progress
from labelmill_worker.store.stalled import return_expired_chunks

_CHUNKS, _ROWS = 2, 6
_NO_REDIS = MessageSender.connect(Settings(broker_url="redis://127.0.0.1:1/0"))
_SCHEMA = [{"name": "t", "labels": ["a", "b"], "multi": False}]


@pytest.fixture(scope="module", autouse=True)
def _files(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    Chunks.template, Chunks.folder = sqlite_template, tmp_path_factory.mktemp("chunks")


class Chunks(RuleBasedStateMachine):
    """Workers, recovery and a person on one batch. `owner` is the model's word on who may write a chunk."""

    template: ClassVar[Path]
    folder: ClassVar[Path]
    claims = Bundle("claims")

    @initialize()
    def submit(self) -> None:
        path = self.folder / f"{new_id(Kind.BATCH)}.db"
        shutil.copy(self.template, path)
        self.path, self.engine = path, connect(f"sqlite:///{path}")
        self.batch = new_id(Kind.BATCH)
        with writing(self.engine) as connection:
            connection.execute(
                insert(ModelRow).values(no=1, name="m", version=1, method="factory", label_schema=_SCHEMA)
            )
            connection.execute(insert(ModelTargetRow).values(model_no=1, target=0, name="t"))
            values = {"no": 1, "id": self.batch, "state": "submitting", "model_no": 1, "model_ref": "m", "options": {}}
            connection.execute(insert(BatchRow).values(values))
        writer = BatchWriter(self.engine, 1, self.batch, sizes=ChunkSizes(_ROWS))
        writer.add([f"text {row}" for row in range(_CHUNKS * _ROWS)])
        writer.finish()
        self.owner: dict[int, str | None] = dict.fromkeys(range(_CHUNKS))
        self.answered: set[int] = set()
        self.failed: set[int] = set()
        self.seen_state = "queued"

    @rule(target=claims, number=st.integers(0, _CHUNKS - 1))
    def claim(self, number: int) -> Claim | None:
        claim = claim_chunk(self.engine, self.batch, number, 60)
        if claim is not None:
            assert self.owner[number] is None, "two workers hold one chunk"
            assert not self._is_done(number)
            rows = set(range(claim.first_row, claim.first_row + _ROWS))
            assert set(claim.answered) == rows & (self.answered | self.failed), "answered rows would be sent again"
            self.owner[number] = claim.token
        return claim

    @rule(claim=claims, count=st.integers(1, 3), failing=st.booleans())
    def record(self, claim: Claim | None, count: int, failing: bool) -> None:
        if claim is None:
            return
        rows = [row for row in range(claim.first_row, claim.first_row + _ROWS) if row not in claim.answered][:count]
        rows = [row for row in rows if row not in self.answered | self.failed] if self._owns(claim) else rows
        left = set(range(claim.first_row, claim.first_row + _ROWS)) - self.answered - self.failed - set(rows)
        try:
            record_progress(self.engine, claim, _progress(claim, rows, failing=failing), 60, done=not left)
        except LeaseLost:
            assert not self._owns(claim), "a worker that holds the lease was refused"
            return
        assert self._owns(claim), "a late worker wrote"
        (self.failed if failing else self.answered).update(rows)
        if not left:
            self.owner[claim.number] = None
            complete_batch(self.engine, 1, self.batch)

    @rule(claim=claims, fruitless=st.booleans())
    def give_back(self, claim: Claim | None, fruitless: bool) -> None:
        if claim is None:
            return
        try:
            release_chunk(self.engine, claim, wait_s=0.0, fruitless=fruitless)
        except LeaseLost:
            assert not self._owns(claim)
            return
        assert self._owns(claim)
        self.owner[claim.number] = None

    @rule(number=st.integers(0, _CHUNKS - 1), hours_ahead=st.booleans())
    def lease_runs_out(self, number: int, hours_ahead: bool) -> None:
        until = 9e9 if hours_ahead else 1.0  # also what a clock that was set back makes of a lease
        with writing(self.engine) as connection:
            connection.execute(
                update(ChunkRow).where(ChunkRow.number == number, ChunkRow.state == "claimed").values(lease_until=until)
            )
        runs = self.seen_state in ("queued", "running")
        returned = return_expired_chunks(self.engine)
        assert returned == int(self.owner[number] is not None and runs)
        assert return_expired_chunks(self.engine) == 0
        if returned:
            self.owner[number] = None

    @rule()
    def retry(self) -> None:
        try:
            retry(self.engine, _NO_REDIS, self.batch)
        except InvalidInput:
            return
        assert self.seen_state in ("completed", "failed", "paused")
        self.failed.clear()
        self.owner = dict.fromkeys(range(_CHUNKS))

    @rule(dice=st.integers(0, 30))
    def cancel(self, dice: int) -> None:
        if dice != 13:  # rarely, or nothing else would be seen
            return
        try:
            cancel(self.engine, _NO_REDIS, self.batch)
        except InvalidInput:
            assert self.seen_state in ("completed", "failed", "cancelled")

    @invariant()
    def every_row_ends_once_and_sums_hold(self) -> None:
        if not hasattr(self, "engine"):
            return
        with reading(self.engine) as connection:
            status = status_document(connection, self.batch)
            answers = connection.scalars(text("SELECT row FROM predictions")).all()
            errors = connection.scalars(text("SELECT row FROM row_errors")).all()
        rows, state = status["rows"], status["state"]
        assert rows["submitted"] == _CHUNKS * _ROWS == sum(n for name, n in rows.items() if name != "submitted")
        assert min(rows.values()) >= 0
        assert sorted(answers) == sorted(self.answered)
        assert sorted(errors) == sorted(self.failed)
        assert (rows["labelled"], rows["failed"]) == (len(answers), len(errors))
        assert state == self.seen_state or _reaches(BatchState(self.seen_state), BatchState(state))
        if state == "completed":
            assert len(answers) + len(errors) == _CHUNKS * _ROWS
        self.seen_state = state

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.engine.dispose()
            for path in self.folder.glob(f"{self.path.name}*"):
                path.unlink()

    def _owns(self, claim: Claim) -> bool:
        return self.owner[claim.number] == claim.token

    def _is_done(self, number: int) -> bool:
        return set(range(number * _ROWS, (number + 1) * _ROWS)) <= self.answered | self.failed


def _reaches(old: BatchState, new: BatchState) -> bool:
    """Within two moves: a step may start and end a batch."""
    return moves_to(old, new) or any(moves_to(old, one) and moves_to(one, new) for one in BatchState)  # type: ignore[arg-type]


def _progress(claim: Claim, rows: list[int], *, failing: bool) -> ChunkProgress:
    if failing:
        errors: list[Any] = [(claim.batch_no, row, None, "request_refused", "no") for row in rows]
        return ChunkProgress(errors=errors, failed=len(rows))
    if not rows:
        return ChunkProgress()
    scores = np.full((len(rows), 2), 0.5, np.float32)
    best = scores.max(axis=1)
    block = PredictionBlock(0, np.array(rows), None, ["a"] * len(rows), None, best, scores)
    return ChunkProgress(blocks=[block], labelled=len(rows))


TestChunks = Chunks.TestCase
TestChunks.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_every_move_of_a_chunk_and_a_batch_is_between_known_states() -> None:
    for kind in (BatchState, ChunkState):
        for new in kind:
            assert all(isinstance(old, kind) and new != old for old in states_before(new))
