"""`purge` deletes what ended long ago with all that belongs to it, and nothing that is open or still of use."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from asked import retry, submit_evaluation
from mill import MODEL, Mill, some_texts
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral, refuse_texts_with
from workshop import SCHEMA, Workshop, intent_rows

from labelmill.contracts.errors import InvalidInput, NotFound
from labelmill.contracts.states import BatchState, TrainingState
from labelmill.core.database import db_now, reading, writing
from labelmill.core.database.tables import (
    AnswerIndexRow,
    Base,
    BatchRow,
    ChunkInputRow,
    ChunkRow,
    DatasetRow,
    DeadLetterRow,
    DelayRow,
    EvaluationRow,
    EventRow,
    JobMetadataRow,
    ModelRow,
    PredictionRow,
    TrainingRow,
    WorkerRow,
    utc_now,
)
from labelmill.core.jobs.events import note, read_events
from labelmill.core.jobs.metadata import write_metadata
from labelmill.core.jobs.tables import TABLE_OF
from labelmill.core.jobs.transitions import create_job, move_job
from labelmill.core.queue.sender import MessageSender
from labelmill.core.storage.local import LocalStorage
from labelmill.core.storage.references import dataset_folder, model_file, source_folder
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.documents import status_document
from labelmill.services.jobs.listing import JobsRequest, list_jobs
from labelmill.services.purging import Purged, PurgeRequest, purge, rows
from labelmill.services.purging.purge import cutoff_of
from labelmill.services.results.reading import read_results
from labelmill.services.results.saving import SaveRequest, save_results

_LONG_AGO = timedelta(days=200)


def _age(engine: Engine, *ids: str) -> None:
    """Let these jobs have ended long ago; without ids all that have ended."""
    with writing(engine) as connection:
        for table in TABLE_OF.values():
            old = update(table).where(table.finished_at.is_not(None)).values(finished_at=utc_now() - _LONG_AGO)
            connection.execute(old.where(table.id.in_(ids)) if ids else old)
        connection.execute(update(EventRow).values(at=utc_now() - _LONG_AGO))


def _counts(engine: Engine) -> dict[str, int]:
    with reading(engine) as connection:
        return {
            name: int(connection.scalar(select(func.count()).select_from(table)) or 0)
            for name, table in Base.metadata.tables.items()
        }


def _purge(engine: Engine, folder: Path, older_than: str = "90d", *, dry_run: bool = False) -> Purged:
    nobody = cast("MessageSender", None)
    return purge(ServiceContext(engine, nobody, LocalStorage(folder)), PurgeRequest(older_than, dry_run))


def _status(engine: Engine, job_id: str) -> dict[str, Any]:
    with reading(engine) as connection:
        return status_document(connection, job_id)


@pytest.fixture
def shop(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(engine, mistral, redis_url, tmp_path / "data")
    yield made
    made.close()


def test_an_old_batch_goes_with_every_row_and_a_young_one_stays_whole(mill: Mill, tmp_path: Path) -> None:
    mill.mistral.faults.append(refuse_texts_with("bad"))
    old = mill.submit([*some_texts(60), *some_texts(15), "bad one", ""], chunk_texts=20)
    young = mill.submit([*some_texts(30), *some_texts(5), "bad two"], chunk_texts=20)
    mill.run(old)
    mill.run(young)
    before_purge = (mill.status(young), mill.predictions(young), mill.errors(young))
    _age(mill.engine, old)
    counts = _counts(mill.engine)
    would = _purge(mill.engine, tmp_path, dry_run=True)
    assert _counts(mill.engine) == counts, "a dry run deletes nothing"
    assert would.jobs == {"dataset": 0, "training": 0, "batch": 1, "evaluation": 0}
    done = _purge(mill.engine, tmp_path)
    assert (done.jobs, done.rows) == (would.jobs, would.rows), "what was foretold was done"
    left = _counts(mill.engine)
    assert {name: counts[name] - left[name] for name in done.rows} == done.rows
    assert all(done.rows[name] > 0 for name in ("chunks", "chunk_inputs", "prediction_rows", "error_rows"))
    assert (done.rows["duplicate_rows"], done.rows["chunk_repeats"] > 0) == (15, True)
    assert (mill.status(young), mill.predictions(young), mill.errors(young)) == before_purge
    assert mill.predictions(old) == {}
    with pytest.raises(NotFound):
        _status(mill.engine, old)
    again = _purge(mill.engine, tmp_path)
    assert not any(again.jobs.values())
    assert not any(again.rows.values())


def test_what_has_not_ended_stays_however_old_it_is(mill: Mill, tmp_path: Path) -> None:
    open_batch, paused = mill.submit(some_texts(5)), mill.submit(some_texts(5))
    with writing(mill.engine) as connection:
        assert move_job(connection, paused, BatchState.RUNNING, old=BatchState.QUEUED)
        assert move_job(connection, paused, BatchState.PAUSED)
        old = utc_now() - _LONG_AGO
        connection.execute(update(BatchRow).values(created_at=old, finished_at=old))
        connection.execute(update(EventRow).values(at=old))
    done = _purge(mill.engine, tmp_path)
    assert not any(done.rows.values())
    assert _status(mill.engine, paused)["state"] == "paused"
    mill.run(open_batch)
    assert _status(mill.engine, open_batch)["state"] == "completed"


@pytest.mark.parametrize("killed_at", range(1, 8))
def test_a_purge_that_is_killed_anywhere_is_finished_by_the_next(
    mill: Mill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    monkeypatch.setattr(rows, "ROWS_AT_ONCE", 20)
    batches = [mill.submit(some_texts(50), chunk_texts=10), mill.submit(some_texts(5))]
    for batch_id in batches:
        mill.run(batch_id)
    _age(mill.engine)
    transactions = 0

    class KilledError(Exception):
        pass

    def counting(engine: Engine) -> Any:
        nonlocal transactions
        transactions += 1
        if transactions > killed_at:
            raise KilledError
        return writing(engine)

    with monkeypatch.context() as patched:
        patched.setattr(rows, "writing", counting)
        with pytest.raises(KilledError):
            _purge(mill.engine, tmp_path)
    with reading(mill.engine) as connection:
        marked = set(connection.scalars(select(BatchRow.id).where(BatchRow.purging)))
    listed = list_jobs(ServiceContext(mill.engine, mill.sender), JobsRequest())
    assert not [one for one in listed if one["id"] in marked]
    for batch_id in marked:
        with pytest.raises(NotFound):
            _status(mill.engine, batch_id)
        with pytest.raises(NotFound):
            list(read_results(mill.engine, batch_id))
        with pytest.raises((NotFound, InvalidInput)):
            retry(mill.engine, mill.sender, batch_id)
    _purge(mill.engine, tmp_path)
    left = _counts(mill.engine)
    assert not any(left[name] for name in ("batches", "chunks", "chunk_inputs", "prediction_rows", "duplicate_rows"))


@pytest.mark.parametrize("is_deleted", [False, True])
def test_results_that_are_read_during_a_purge_do_not_look_complete(mill: Mill, *, is_deleted: bool) -> None:
    batch = mill.submit(some_texts(40), chunk_texts=4)
    mill.run(batch)
    output = Path("all.jsonl")
    output.write_text("of before")

    def purge_meanwhile(_: int) -> None:
        with writing(mill.engine) as connection:
            connection.execute(update(BatchRow).values(purging=True))
            for table in (ChunkInputRow, ChunkRow):
                connection.execute(delete(table).where(is_deleted or table.number >= 5))
            if is_deleted:
                connection.execute(delete(PredictionRow))
                connection.execute(delete(BatchRow))

    with pytest.raises(NotFound, match=f"no job has the id '{batch}'"):
        save_results(ServiceContext(mill.engine, mill.sender), SaveRequest(batch, output), on_progress=purge_meanwhile)
    assert output.read_text() == "of before"


def test_transactions_are_bounded(mill: Mill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "ROWS_AT_ONCE", 20)
    mill.run(mill.submit(some_texts(200), chunk_texts=10))
    _age(mill.engine)
    most: list[int] = []
    deleting = rows.Deleted.delete

    def watched(self: rows.Deleted, *arguments: Any) -> int:
        most.append(deleting(self, *arguments))
        return most[-1]

    monkeypatch.setattr(rows.Deleted, "delete", watched)
    done = _purge(mill.engine, tmp_path)
    assert done.rows["prediction_rows"] == 200
    assert max(most) <= 30


def test_the_cache_forgets_purged_answers_and_keeps_the_others(mill: Mill, tmp_path: Path) -> None:
    texts = some_texts(40)
    old, kept = mill.submit(texts[:20]), mill.submit(texts[20:])
    mill.run(old)
    mill.run(kept)
    mill.run(mill.submit(texts, cache=True))
    _age(mill.engine, old)
    done = _purge(mill.engine, tmp_path)
    assert done.rows["answer_index"] == 20
    with reading(mill.engine) as connection:
        numbers = set(connection.scalars(select(AnswerIndexRow.batch_no)))
        assert numbers == {connection.scalar(select(BatchRow.no).where(BatchRow.id == kept))}
    mill.mistral.billed.clear()
    document = mill.run(mill.submit(texts, cache=True))
    assert (document["rows"]["labelled"], document["cached"]) == (40, 20)


def test_workers_go_on_beside_a_purge(mill: Mill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "ROWS_AT_ONCE", 20)
    for _ in range(3):
        mill.run(mill.submit(some_texts(60), chunk_texts=10))
    _age(mill.engine)
    running = mill.submit([f"new {text}" for text in some_texts(200)], chunk_texts=10)
    faults: list[BaseException] = []

    def purging() -> None:
        try:
            _purge(mill.engine, tmp_path)
        except BaseException as error:  # noqa: BLE001 - told by the test
            faults.append(error)

    thread = threading.Thread(target=purging)
    thread.start()
    document = mill.run(running)
    thread.join()
    assert faults == []
    assert (document["state"], document["rows"]["labelled"]) == ("completed", 200)
    assert len(mill.predictions(running)) == 200
    with reading(mill.engine) as connection:
        assert list(connection.scalars(select(BatchRow.id))) == [running]


def _evaluated(shop: Workshop) -> tuple[str, str]:
    """A dataset, a model of it and an evaluation that completed. Returns the ids of dataset and evaluation."""
    dataset_id = shop.dataset(
        "small", SCHEMA, train=intent_rows("t", 9), validation=intent_rows("v", 9), test=intent_rows("x", 20)
    )
    shop.model("m", SCHEMA, dataset_id=dataset_id, dataset_fingerprint="print of small")
    evaluation = submit_evaluation(shop.engine, shop.sender, model="m", dataset="small")
    assert shop.run(evaluation)["state"] == "completed"
    with writing(shop.engine) as connection:
        connection.execute(update(DatasetRow).values(finished_at=utc_now()))
    return dataset_id, evaluation


def test_an_old_evaluation_goes_with_its_batch_and_the_live_model_keeps_its_dataset(shop: Workshop) -> None:
    dataset_id, evaluation = _evaluated(shop)
    _age(shop.engine)
    would = _purge(shop.engine, shop.folder, dry_run=True)
    done = _purge(shop.engine, shop.folder)
    assert done == Purged(
        done.before, dry_run=False, jobs=would.jobs, kept=would.kept, rows=would.rows, files=0, bytes=0
    )
    assert done.jobs == {"dataset": 0, "training": 0, "batch": 1, "evaluation": 1}
    assert done.kept["dataset"] == 1
    assert done.rows["analyses"] == 1
    with pytest.raises(NotFound):
        _status(shop.engine, evaluation)
    assert _status(shop.engine, dataset_id)["state"] == "ready"
    assert shop.split_file("small", "test").is_file()
    again = submit_evaluation(shop.engine, shop.sender, model="m", dataset="small")
    assert shop.run(again)["state"] == "completed", "the model still answers, and its dataset can be used"


def test_a_batch_of_an_evaluation_stays_as_long_as_the_evaluation(shop: Workshop) -> None:
    _, evaluation = _evaluated(shop)
    batch_id = _status(shop.engine, evaluation)["batch"]
    _age(shop.engine, batch_id)
    assert _purge(shop.engine, shop.folder).jobs["batch"] == 0
    assert len(list(read_results(shop.engine, evaluation))) == 20


def test_a_dataset_that_nothing_needs_goes_with_its_files(shop: Workshop) -> None:
    dataset_id, _ = _evaluated(shop)
    with writing(shop.engine) as connection:
        connection.execute(update(ModelRow).values(state="deleted"))
    copies = shop.folder / source_folder(dataset_id)
    copies.mkdir(parents=True)
    (copies / "source.csv").write_text("a,b\n")
    _age(shop.engine)
    would = _purge(shop.engine, shop.folder, dry_run=True)
    done = _purge(shop.engine, shop.folder)
    assert (done.files, done.bytes) == (would.files, would.bytes)
    assert done.files == 4
    assert done.jobs["dataset"] == 1
    assert not (shop.folder / dataset_folder(dataset_id)).exists()
    assert not copies.exists()
    with reading(shop.engine) as connection:
        assert connection.scalar(select(func.count()).select_from(ModelRow)) == 1, "no version number is used again"


def _training(engine: Engine, job_id: str, state: TrainingState, dataset_id: str, **values: Any) -> None:
    with writing(engine) as connection:
        create_job(
            connection,
            job_id,
            TrainingState.QUEUED,
            "submitted",
            name="m",
            method="embedding",
            dataset_id=dataset_id,
            options={},
            **values,
        )
        moved = {TrainingState.SUCCEEDED: (TrainingState.VALIDATING, TrainingState.RUNNING, TrainingState.SUCCEEDED)}
        for new in moved.get(state, (state,) if state is not TrainingState.QUEUED else ()):
            assert move_job(connection, job_id, new)


def test_a_dataset_stays_for_an_open_training_and_the_training_of_a_live_model_for_the_model(shop: Workshop) -> None:
    needed = shop.dataset("needed", SCHEMA, train=intent_rows("t", 9))
    made_of = shop.dataset("made_of", SCHEMA, train=intent_rows("t", 9))
    with writing(shop.engine) as connection:
        connection.execute(update(DatasetRow).values(finished_at=utc_now()))
    _training(shop.engine, "train_0000000001", TrainingState.QUEUED, needed)
    _training(shop.engine, "train_0000000002", TrainingState.SUCCEEDED, made_of)
    _training(shop.engine, "train_0000000003", TrainingState.FAILED, made_of)
    shop.model("m", SCHEMA, dataset_id=made_of, training_id="train_0000000002", method="embedding")
    models = shop.folder / model_file("train_0000000002")
    models.parent.mkdir()
    for name in ("train_0000000002.zip", "train_0000000003.zip", "train_0000000003.abc.part", "somebody.zip"):
        (models.parent / name).write_bytes(b"x")
    _age(shop.engine)
    done = _purge(shop.engine, shop.folder)
    assert done.jobs == {"dataset": 0, "training": 1, "batch": 0, "evaluation": 0}
    assert done.kept == {"dataset": 2, "training": 1, "batch": 0, "evaluation": 0}
    assert sorted(file.name for file in models.parent.iterdir()) == ["somebody.zip", "train_0000000002.zip"]
    with writing(shop.engine) as connection:
        connection.execute(update(ModelRow).values(state="deleted"))
    done = _purge(shop.engine, shop.folder)
    assert (done.jobs["training"], done.jobs["dataset"], done.files) == (1, 1, 2)
    with reading(shop.engine) as connection:
        assert list(connection.scalars(select(TrainingRow.id))) == ["train_0000000001"]
        assert list(connection.scalars(select(DatasetRow.id))) == [needed]


def test_a_training_stays_while_its_files_are_to_be_deleted_at_mistral(shop: Workshop) -> None:
    dataset_id = shop.dataset("d", SCHEMA, train=intent_rows("t", 9))
    _training(shop.engine, "train_0000000001", TrainingState.CANCELLED, dataset_id, remote_files={"train": "file-1"})
    with writing(shop.engine) as connection:
        days_ago = utc_now() - timedelta(days=3)
        connection.execute(update(DatasetRow).values(finished_at=days_ago))
        connection.execute(update(TrainingRow).values(finished_at=days_ago))
    done = _purge(shop.engine, shop.folder, "1d")
    assert not any(done.jobs.values())
    assert (done.kept["training"], done.kept["dataset"]) == (1, 1)
    with writing(shop.engine) as connection:  # longer ago than Mistral keeps a file
        connection.execute(update(TrainingRow).values(finished_at=utc_now() - timedelta(days=31)))
    assert _purge(shop.engine, shop.folder, "1d").jobs["training"] == 1


def test_a_dataset_whose_files_a_younger_one_shares_stays(shop: Workshop) -> None:
    first = shop.dataset("d", SCHEMA, train=intent_rows("t", 9))
    with writing(shop.engine) as connection:
        connection.execute(update(DatasetRow).values(finished_at=utc_now() - _LONG_AGO))
        values = {"id": "prep_ffffffffff", "state": "ready", "name": "d", "version": 1, "spec": {}, "repeats": first}
        connection.execute(insert(DatasetRow).values(**values, finished_at=utc_now()))
    assert not any(_purge(shop.engine, shop.folder).jobs.values())
    _age(shop.engine)
    assert _purge(shop.engine, shop.folder).jobs["dataset"] == 2


def test_files_whose_job_is_gone_are_deleted_once_they_are_old(shop: Workshop) -> None:
    for name in (dataset_folder("prep_00000000aa"), source_folder("prep_00000000bb.part"), "datasets/not-ours"):
        (shop.folder / name).mkdir(parents=True)
        (shop.folder / name / "file").write_text("x")
    assert _purge(shop.engine, shop.folder).files == 0, "their jobs may just be written"
    old = time.time() - _LONG_AGO.total_seconds()
    for path in shop.folder.glob("*/*"):
        os.utime(path, (old, old))
    assert _purge(shop.engine, shop.folder, dry_run=True).files == 2
    assert _purge(shop.engine, shop.folder).files == 2
    assert [path.name for path in shop.folder.glob("*/*")] == ["not-ours"]


def test_old_events_dropped_messages_and_gone_workers_go_and_readers_go_on(engine: Engine, tmp_path: Path) -> None:
    old, seconds = utc_now() - _LONG_AGO, _LONG_AGO.total_seconds()
    with writing(engine) as connection:
        for number in range(4):
            note(connection, f"model_{number:012x}", str(number))
        connection.execute(update(EventRow).values(at=old))
        connection.execute(insert(DeadLetterRow).values(at=old, reason="r", excerpt="e"))
        connection.execute(insert(DeadLetterRow).values(at=utc_now(), reason="r", excerpt="e"))
        for name, ago_s in (("gone", seconds), ("here", 0.0)):
            connection.execute(insert(WorkerRow).values(id=name, name=name, queues=",", seen_at=db_now() - ago_s))
            values = {"worker_id": name, "subject": "redis", "reason": "r", "message": "m", "since": 0.0}
            connection.execute(insert(DelayRow).values(**values, until=db_now() - ago_s))
    last = read_events(engine)[-1].position
    would, done = _purge(engine, tmp_path, dry_run=True), _purge(engine, tmp_path)
    assert done.rows == would.rows
    assert {name: count for name, count in done.rows.items() if count} == {
        "dead_letters": 1,
        "delays": 1,
        "events": 3,
        "workers": 1,
    }
    with writing(engine) as connection:
        note(connection, "model_00000000000a", "new")
    assert [event.message for event in read_events(engine, last)] == ["new"]


def test_a_key_of_a_purged_batch_is_free_and_its_metadata_is_gone(mill: Mill, tmp_path: Path) -> None:
    batch_id = mill.submit(some_texts(3))
    mill.run(batch_id)
    with writing(mill.engine) as connection:
        connection.execute(update(BatchRow).values(idempotency_key="k"))
        write_metadata(connection, batch_id, {"team": "search"})
    _age(mill.engine)
    would, done = _purge(mill.engine, tmp_path, dry_run=True), _purge(mill.engine, tmp_path)
    assert would.rows["job_metadata"] == done.rows["job_metadata"] == 1
    with reading(mill.engine) as connection:
        assert connection.scalar(select(func.count()).select_from(JobMetadataRow)) == 0
        assert connection.scalar(select(func.count()).select_from(BatchRow)) == 0
        assert connection.scalar(select(func.count()).select_from(ChunkRow)) == 0
        assert connection.scalar(select(func.count()).select_from(EvaluationRow)) == 0
        assert connection.scalar(select(ModelRow.name).where(ModelRow.version == 0)) == MODEL


@pytest.mark.parametrize(("age", "days"), [("90d", 90), ("2w", 14), ("48h", 2), ("1440m", 1), ("0d", 0)])
def test_ages_have_a_unit(age: str, days: int) -> None:
    assert abs(utc_now() - timedelta(days=days) - cutoff_of(age)) < timedelta(minutes=1)


@pytest.mark.parametrize("age", ["", "90", "d", "-1d", "1.5d", "90 days", "9999999d", "999999w", "٣d"])
def test_other_ages_are_refused_with_an_example(age: str) -> None:
    with pytest.raises(InvalidInput, match="older_than"):
        cutoff_of(age)
