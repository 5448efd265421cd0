"""Submitting a batch: chunks, duplicates, idempotency, what Redis being down means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from asked import submit_batch
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import BrokerUnavailable, InvalidInput
from labelmill.core.chunks import writer
from labelmill.core.chunks.encoding import ContentDigest
from labelmill.core.chunks.sizes import ChunkSizes
from labelmill.core.chunks.writer import BatchWriter
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, ChunkRow, DuplicateRow, EventRow, ModelRow
from labelmill.services.jobs.documents import status_document

MODEL = "ft:classifier:test"


class Outbox:
    """A sender that keeps what it is given, or is down."""

    def __init__(self, *, down: bool = False, fault: Exception | None = None) -> None:
        self.fault = BrokerUnavailable("down") if down else fault
        self.sent: list[Any] = []

    def send(self, task: str, messages: Any, **_: Any) -> None:
        del task
        if self.fault is not None:
            raise self.fault
        self.sent += messages


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    rows = [{"id": f"r{number}", "text": f"text {number % 4500}"} for number in range(5000)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _submit(engine: Engine, source: Path, **options: Any) -> str:
    return submit_batch(
        engine, options.pop("outbox", Outbox()), source=str(source), model=MODEL, id_column="id", **options
    )


def _count(engine: Engine, table: Any) -> int:
    with reading(engine) as connection:
        return int(connection.scalar(select(func.count()).select_from(table)) or 0)


def test_every_row_is_in_a_chunk_and_repeated_texts_are_not_sent(engine: Engine, texts: Path) -> None:
    outbox = Outbox()
    batch_id = _submit(engine, texts, outbox=outbox)
    with reading(engine) as connection:
        document = status_document(connection, batch_id)
        sums = connection.execute(select(func.sum(ChunkRow.rows), func.sum(ChunkRow.texts))).one()
        duplicates = connection.execute(
            select(DuplicateRow.row, DuplicateRow.first_row, DuplicateRow.external_id).order_by(DuplicateRow.row)
        ).all()
    assert document["state"] == "queued"
    assert document["rows"]["submitted"] == document["rows"]["pending"] == 5000
    assert tuple(map(int, sums)) == (5000, 4500)
    assert [tuple(row) for row in duplicates] == [(4500 + n, n, f"r{4500 + n}") for n in range(500)]
    assert [message.chunk for message in outbox.sent] == list(range(6))


def test_chunks_grow_with_the_batch_and_hold_whole_requests(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text("".join(f'{{"id": {number}, "text": "text {number}"}}\n' for number in range(90_000)))
    _submit(engine, path)
    with reading(engine) as connection:
        sizes = list(connection.scalars(select(ChunkRow.texts).order_by(ChunkRow.number)))
    assert sum(sizes) == 90_000
    assert (sizes[:4], max(sizes)) == ([500] * 4, 10_000)
    for number, size in enumerate(sizes[:-1]):
        assert size % 500 == 0
        before = sum(sizes[:number])
        assert size <= max(500, min(before / 2, 5_000), before / 4)


def test_chunks_of_prompts_grow_more_slowly() -> None:
    sizes = ChunkSizes.of("prompt")
    assert [sizes.after(rows) for rows in (0, 2_000, 3_999, 8_000, 20_000)] == [500, 500, 500, 2_000, 4_000]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_chunks_of_long_texts_are_closed_early(engine: Engine, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"long.{kind}"
    rows = [(f"r{number}", f"{number:0300000}" if 10 <= number < 40 else f"{number}") for number in range(50)]
    lines = [json.dumps({"id": name, "text": text}) if kind == "jsonl" else f"{name},{text}" for name, text in rows]
    path.write_text("\n".join(lines if kind == "jsonl" else ["id,text", *lines]))
    _submit(engine, path)
    with reading(engine) as connection:
        sizes = connection.scalars(select(ChunkRow.rows).order_by(ChunkRow.number)).all()
    assert sizes == [24, 14, 12]  # 14 of 300,000 characters are the first to reach four million


def test_repeated_rows_keep_their_ids_beside_others_that_have_none(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    ids = [None if number < 999 else f"r{number} \N{FIRE}" for number in range(1200)]  # a chunk without, one with
    rows = [{"id": name, "text": f"text {number // 2}"} for number, name in enumerate(ids)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _submit(engine, path)
    with reading(engine) as connection:
        kept = connection.execute(select(DuplicateRow.row, DuplicateRow.external_id).order_by(DuplicateRow.row)).all()
    assert [tuple(row) for row in kept] == [(number, ids[number] or "") for number in range(1, 1200, 2)]


def test_whatever_goes_wrong_after_the_batch_is_written_names_it(engine: Engine, texts: Path) -> None:
    warnings: list[str] = []
    batch_id = _submit(engine, texts, outbox=Outbox(fault=ValueError("secret")), warn=warnings.append)
    (warning,) = warnings
    assert warning.startswith(f"{batch_id} is accepted")
    assert "secret" not in warning


def test_with_redis_down_the_batch_is_accepted_with_a_warning(engine: Engine, texts: Path) -> None:
    warnings: list[str] = []
    batch_id = _submit(engine, texts, outbox=Outbox(down=True), warn=warnings.append)
    assert "Redis" in warnings[0]
    with reading(engine) as connection:
        assert status_document(connection, batch_id)["state"] == "queued"
        assert connection.scalar(select(func.count()).where(ChunkRow.sent_at.is_not(None))) == 0


def test_the_same_key_and_content_is_the_same_batch(engine: Engine, texts: Path, tmp_path: Path) -> None:
    first = _submit(engine, texts, idempotency_key="k")
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(texts.read_bytes())
    assert _submit(engine, copy, idempotency_key="k") == first
    assert _count(engine, BatchRow) == 1


@pytest.mark.parametrize("change", ["row", "option"])
def test_the_same_key_for_something_else_is_refused(engine: Engine, texts: Path, change: str) -> None:
    _submit(engine, texts, idempotency_key="k")
    if change == "row":
        texts.write_text(texts.read_text().replace("text 17", "text XVII", 1))
    with pytest.raises(InvalidInput, match="key"):
        _submit(engine, texts, idempotency_key="k", thresholds={"*": 0.5} if change == "option" else None)


def test_a_submission_that_died_half_way_is_resumed_by_its_key(
    engine: Engine, texts: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = _submit(engine, texts)
    cut = BatchWriter._cut

    def die_at_the_third(writer: BatchWriter, start: int, end: int) -> None:
        if len(writer._first_rows) == 2:
            raise KeyboardInterrupt
        cut(writer, start, end)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_CHUNKS_PER_COMMIT", 1)
        patch.setattr(BatchWriter, "_cut", die_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            _submit(engine, texts, idempotency_key="k")
    resumed = _submit(engine, texts, idempotency_key="k")
    assert not caplog.records, "a driver's complaints would stand on stderr"
    with reading(engine) as connection:
        assert status_document(connection, resumed)["rows"] == status_document(connection, whole)["rows"]
        assert status_document(connection, resumed)["duplicates"] == 500
        written = connection.execute(
            text("SELECT count(*) FROM chunk_inputs i JOIN batches b ON b.no = i.batch_no WHERE b.id = :id"),
            {"id": resumed},
        )
        assert written.scalar() == 7


def test_a_submission_is_not_resumed_with_other_content(
    engine: Engine, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(writer: BatchWriter) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_CHUNKS_PER_COMMIT", 1)
        patch.setattr(BatchWriter, "finish", die)
        with pytest.raises(KeyboardInterrupt):
            _submit(engine, texts, idempotency_key="k")
    texts.write_text(texts.read_text().replace("text 17", "text XVII", 1))
    with pytest.raises(InvalidInput, match="other rows from row 0 on"):
        _submit(engine, texts, idempotency_key="k")


def test_a_threshold_for_a_target_the_model_has_not_is_refused(engine: Engine, texts: Path) -> None:
    with writing(engine) as connection:
        connection.execute(
            insert(ModelRow).values(
                name="m",
                version=1,
                promoted=True,
                method="factory",
                remote_model="ft:x",
                label_schema=[{"name": "intent", "labels": ["a", "b"], "multi": False}],
            )
        )
    with pytest.raises(InvalidInput, match="intent"):
        submit_batch(engine, Outbox(), source=str(texts), model="m", thresholds={"intnet": 0.5})
    submit_batch(engine, Outbox(), source=str(texts), model="m", thresholds={"intent": 0.5})


def test_wrong_input_ends_the_batch_and_frees_its_key(engine: Engine, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": "a", "text": "fine"}\n{"id": "b", "text"\n')
    with pytest.raises(InvalidInput, match=r"broken\.jsonl:2"):
        _submit(engine, broken, idempotency_key="k")
    broken.write_text('{"id": "a", "text": "fine"}\n')
    _submit(engine, broken, idempotency_key="k")


def test_a_digest_does_not_depend_on_how_rows_come_in_blocks() -> None:
    ids, texts = [f"{n}" for n in range(10)], [f"text {n}" for n in range(10)]
    whole, parts = ContentDigest(), ContentDigest()
    whole.add(texts, ids)
    for start in range(0, 10, 3):
        parts.add(texts[start : start + 3], ids[start : start + 3])
    assert whole.hexdigest() == parts.hexdigest()


@pytest.fixture
def with_bad_rows(tmp_path: Path) -> Path:
    path = tmp_path / "some-bad.jsonl"
    path.write_text('{"id": "a", "text": "one"}\n{"id": "b", "text": \n["text"]\n{"id": "c", "text": "two"}\n')
    return path


def test_rows_that_cannot_be_read_are_left_out_counted_and_named(engine: Engine, with_bad_rows: Path) -> None:
    warnings: list[str] = []
    batch_id = _submit(engine, with_bad_rows, on_bad_row="skip", warn=warnings.append)
    with reading(engine) as connection:
        document = status_document(connection, batch_id)
        events = connection.scalars(select(EventRow.message).where(EventRow.job_id == batch_id)).all()
    assert (document["state"], document["rows"]["submitted"], document["skipped"]) == ("queued", 2, 2)
    assert len(warnings) == 1
    assert warnings[0].startswith("2 rows were left out")
    assert "some-bad.jsonl:2: broken JSON" in warnings[0]
    assert "some-bad.jsonl:3: the line is a list" in warnings[0]
    assert warnings[0] in events


def test_a_row_that_cannot_be_read_fails_a_submission_unless_told_otherwise(
    engine: Engine, with_bad_rows: Path
) -> None:
    with pytest.raises(InvalidInput, match=r"some-bad\.jsonl:2: broken JSON.*on_bad_row=skip"):
        _submit(engine, with_bad_rows)


def test_a_source_of_bad_rows_alone_is_refused(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "all-bad.jsonl"
    path.write_text("{\n{\n")
    with pytest.raises(InvalidInput, match="no row that can be read"):
        _submit(engine, path, on_bad_row="skip")


def test_a_mended_file_with_the_same_readable_rows_is_the_same_content(engine: Engine, with_bad_rows: Path) -> None:
    batch_id = _submit(engine, with_bad_rows, on_bad_row="skip", idempotency_key="k")
    with_bad_rows.write_text('{"id": "a", "text": "one"}\n{"id": "c", "text": "two"}\n')
    assert _submit(engine, with_bad_rows, on_bad_row="skip", idempotency_key="k") == batch_id
    with pytest.raises(InvalidInput, match="other options"):
        _submit(engine, with_bad_rows, idempotency_key="k")


def test_a_key_stands_for_its_batch_though_options_were_added_since(engine: Engine, texts: Path) -> None:
    batch_id = _submit(engine, texts, idempotency_key="k")
    with writing(engine) as connection:
        options = connection.scalar(select(BatchRow.options).where(BatchRow.id == batch_id)) or {}
        older = {name: value for name, value in options.items() if name not in ("on_bad_row", "cache")}
        connection.execute(update(BatchRow).where(BatchRow.id == batch_id).values(options=older))
    assert _submit(engine, texts, idempotency_key="k") == batch_id


@pytest.mark.parametrize(
    ("multi", "reason"),
    [
        ("tipo", "the model's targets are topic, mood"),
        ("topic", "models register NAME ft:classifier:test --multi topic"),
    ],
)
def test_a_multi_label_target_that_the_model_is_known_not_to_have_is_refused(
    engine: Engine, texts: Path, multi: str, reason: str
) -> None:
    _submit(engine, texts)
    schema = [{"name": "topic", "labels": ["a"], "multi": False}, {"name": "mood", "labels": ["b"], "multi": True}]
    with writing(engine) as connection:
        connection.execute(update(ModelRow).values(label_schema=schema))
    assert _submit(engine, texts, multi=["mood"])
    with pytest.raises(InvalidInput, match=reason):
        _submit(engine, texts, multi=[multi])


@pytest.mark.parametrize(
    ("content", "sentence", "is_skip_advised"),
    [
        ("id,text\n1,a,b\n2,c\n", "3 cells where the header has 2", True),
        ("id,text\n1,a\n2,b,c\n", "3 cells where the header has 2", True),
        ("id,text\n" + "1,a,b\n" * 50, "none of the first 50 rows can be read", False),
        ("id,text\n" + "1,a,b\n" * 5000, "none of the first 1000 rows can be read", False),
        ("id,text\n1,a,b\n", "the only row cannot be read", False),
        ("id,text\n1,a\n2,\udcfc\n", "save the file as UTF-8, or name its encoding, such as encoding=cp1252", False),
    ],
)
def test_leaving_rows_out_is_advised_only_where_others_can_be_read(
    engine: Engine, tmp_path: Path, content: str, sentence: str, *, is_skip_advised: bool
) -> None:
    (tmp_path / "a.csv").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidInput) as refused:
        _submit(engine, tmp_path / "a.csv")
    assert sentence in refused.value.message
    assert ("on_bad_row=skip" in refused.value.message) == is_skip_advised
    assert _count(engine, BatchRow) == 0


def test_how_a_source_was_read_is_recorded_and_is_no_part_of_what_a_key_stands_for(
    engine: Engine, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id;text\n1;a\n")
    batch_id = _submit(engine, path, idempotency_key="k")
    with reading(engine) as connection:
        options = connection.scalar(select(BatchRow.options).where(BatchRow.id == batch_id)) or {}
    assert options["formats"] == [{"kind": "csv", "encoding": "UTF-8", "delimiter": ";", "quoting": "standard"}]
    path.write_text("id,text\n1,a\n")
    assert _submit(engine, path, idempotency_key="k") == batch_id
    with pytest.raises(InvalidInput, match="other options"):
        _submit(engine, path, idempotency_key="k", delimiter=",")


def test_rows_that_take_up_several_lines_are_counted_with_their_lines(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n1,"a\nb\nc",d\n2,e\n')
    warnings: list[str] = []
    _submit(engine, tmp_path / "a.csv", on_bad_row="skip", warn=warnings.append)
    assert warnings == [
        "1 row was left out (3 lines), as they cannot be read: a.csv:2-4: 3 cells where the header has 2"
    ]
