"""Batches by batch jobs, through the real adapter, against an emulator with every fault that jobs and their lines can
have: each row is answered once and billed once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from emulator_thread import EmulatorThread
from mill import some_texts
from remote_mill import RemoteMill
from sqlalchemy import insert
from sqlalchemy.engine import Engine

from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.core.database import connect, writing
from labelmill.core.database.tables import ModelRow, ModelTargetRow
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_worker.inference.batch_mode import packing
from labelmill_worker.inference.models.head import Head
from labelmill_worker.mistral.batch_jobs import SdkBatchJobs
from labelmill_worker.mistral.sdk_requests import SdkRequests

SCHEMA = LabelSchema((Target("intent", ("a", "b")),))


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorConfig(port=0, batch_queue_s=0.01, batch_run_s=0.02)) as running:
        yield running


@pytest.fixture
def engine(sqlite_template: Path, tmp_path: Path) -> Iterator[Engine]:
    """SQLite alone: what differs between databases is tested without the emulator."""
    shutil.copy(sqlite_template, tmp_path / "labelmill.db")
    made = connect(f"sqlite:///{tmp_path / 'labelmill.db'}")
    yield made
    made.dispose()


@pytest.fixture
def mill(engine: Engine, redis_url: str, tmp_path: Path, emulator: EmulatorThread) -> Iterator[RemoteMill]:
    made = RemoteMill(engine, redis_url, tmp_path / "data", poll_s=0.02)
    jobs = SdkBatchJobs(SdkRequests("any", emulator.url, timeout_s=10, sleep=lambda _: None))
    made.resources = replace(made.resources, batch_jobs_override=jobs)
    rng = np.random.default_rng(3)
    head = Head(SCHEMA, [rng.normal(size=(1024, 2)).astype(np.float32)], [np.zeros(2, np.float32)])
    sha256 = head.save(made.resources.storage, "models/head.zip")
    values: dict[str, Any] = {"version": 1, "promoted": True, "remote_model": "mistral-embed"}
    with writing(engine) as connection:
        row = insert(ModelRow).values(
            name="head",
            method="embedding",
            label_schema=SCHEMA.to_json(),
            recipe={"file": "models/head.zip", "sha256": sha256},
            **values,
        )
        key = connection.execute(row.returning(ModelRow.no)).scalar_one()
        connection.execute(insert(ModelTargetRow).values(model_no=key, target=0, name="intent"))
    yield made
    _arm(emulator)
    jobs.close()
    made.close()


def _arm(emulator: EmulatorThread, *faults: str) -> None:
    httpx2.put(f"{emulator.url}/_control/faults", json={"faults": faults}).raise_for_status()


@pytest.mark.parametrize(
    ("faults", "billed"),
    [
        ((), 120),
        (("batch-expiresx1:1:0.5",), 120),
        (("batch-failsx1:1:0.25",), 120),
        (("batch-cancelledx1:1:0.5",), 120),
        (("batch-lists-refused",), 120),
        (("line-failedx3:1:503", "line-refusedx2:1:400"), 120),
        (("line-repeatedx4",), 120),
        (("line-droppedx2", "line-anonymousx1"), 150),
        (("batch-without-filesx1:1:errors", "line-failedx2:1:429"), 120),
        (("lost@create-batchx1:1:reset",), 120),
        (("lost@uploadx1:1:reset",), 120),
        (("reset@downloadx2",), 120),
        (("500@get-batchx2", "503@downloadx1"), 120),
        (("too-few@batch-linex2",), None),
    ],
    ids=lambda value: " ".join(value) or "none" if isinstance(value, tuple) else "",
)
def test_every_row_is_answered(
    mill: RemoteMill,
    emulator: EmulatorThread,
    monkeypatch: pytest.MonkeyPatch,
    faults: tuple[str, ...],
    billed: int | None,
) -> None:
    monkeypatch.setattr(packing, "MAX_INLINE_REQUESTS", 0)
    before = emulator.stats()["by_mode"]
    _arm(emulator, *faults)
    batch = mill.submit(some_texts(120), model="head")
    status = mill.run(batch)
    assert (status["state"], status["rows"]["labelled"]) == ("completed", 120), status
    after = emulator.stats()["by_mode"]
    assert after["realtime"] == before["realtime"]
    if billed is not None:
        assert after["batch"]["texts"] - before["batch"]["texts"] == billed
