"""The ids of a user's rows: where there is none, where one repeats, where one cannot be kept."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from asked import submit_batch
from sqlalchemy import insert, select, text
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import InvalidInput
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, ModelRow, ModelTargetRow, PredictionRow, RowErrorRow
from labelmill.services.results.export import write_results
from labelmill.services.results.reading import read_result_lines, read_results
from labelmill.services.submissions.repeated_ids import RepeatedIds

_IDS = ["1", None, "", "r3", None, "5"]
_TEXTS = ["a", "b", "c", "b", "a", "d"]  # rows 3 and 4 repeat earlier ones


class Quiet:
    def send(self, *_: Any, **__: Any) -> None:
        pass


def written(folder: Path, rows: list[dict[str, Any]], kind: str = "jsonl") -> str:
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as stream:
            table = csv.DictWriter(stream, ["id", "text"])
            table.writeheader()
            table.writerows(rows)
    return str(path)


def answered(engine: Engine, batch_id: str, ids: list[str | None]) -> None:
    """What a worker would have recorded: an error for row 2, a label for the other distinct texts."""
    with writing(engine) as connection:
        batch = connection.execute(select(BatchRow.no, BatchRow.model_no).where(BatchRow.id == batch_id)).one()
        schema = [{"name": "t", "labels": ["x"], "multi": False}]
        connection.execute(ModelRow.__table__.update().values(label_schema=schema))
        connection.execute(insert(ModelTargetRow).values(model_no=batch.model_no, target=0, name="t"))
        for row in (0, 1, 5):
            connection.execute(
                insert(PredictionRow).values(
                    batch_no=batch.no,
                    row=row,
                    target=0,
                    external_id=ids[row] or "",
                    label="x",
                    score=1.0,
                    scores=b"\0\0\x80\x3f",
                )
            )
        failed = {"batch_no": batch.no, "row": 2, "external_id": ids[2] or "", "code": "c", "message": "m"}
        connection.execute(insert(RowErrorRow).values(failed))


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_row_without_an_id_has_null_and_never_its_number(engine: Engine, tmp_path: Path, kind: str) -> None:
    """Row 1 has none, and its number is the id of row 0."""
    rows = [{"id": name, "text": text} for name, text in zip(_IDS, _TEXTS, strict=True)]
    batch_id = submit_batch(engine, Quiet(), source=written(tmp_path, rows, kind), model="ft:x", id_column="id")  # type: ignore[arg-type]
    answered(engine, batch_id, _IDS)

    expected = [name or None for name in _IDS]
    assert [row["id"] for row in read_results(engine, batch_id)] == expected
    with reading(engine) as connection:
        views = connection.execute(
            text("SELECT row, external_id FROM predictions UNION ALL SELECT row, external_id FROM row_errors")
        )
        assert [name for _, name in sorted(views.all(), key=lambda one: int(one[0]))] == expected
    output = tmp_path / "out.csv"
    write_results(read_result_lines(engine, batch_id), ["t"], output)
    with output.open() as lines:
        assert [row["id"] for row in csv.DictReader(lines)] == [name or "" for name in _IDS]


def test_texts_that_look_like_rows_without_an_id_stay_as_they_are(engine: Engine, tmp_path: Path) -> None:
    odd = ['{"row":0,"id":"","text":"x"}', ',"id":"","text":', '\\,"id":"","text":']
    rows = [{"id": "", "text": one} for one in odd]
    batch_id = submit_batch(engine, Quiet(), source=written(tmp_path, rows), model="ft:x", id_column="id")  # type: ignore[arg-type]
    answered(engine, batch_id, [None] * 6)
    found = list(read_results(engine, batch_id))
    assert [row["text"] for row in found] == odd
    assert [row["id"] for row in found] == [None] * 3


def test_without_a_column_of_ids_the_row_numbers_are_the_ids(engine: Engine, tmp_path: Path) -> None:
    rows = [{"text": one} for one in "abc"]
    batch_id = submit_batch(engine, Quiet(), source=written(tmp_path, rows), model="ft:x")  # type: ignore[arg-type]
    with writing(engine) as connection:
        number = connection.scalar(select(BatchRow.no))
        failed = [{"batch_no": number, "row": row, "external_id": None, "code": "c", "message": ""} for row in range(3)]
        connection.execute(insert(RowErrorRow), failed)
    assert [row["id"] for row in read_results(engine, batch_id)] == ["0", "1", "2"]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_an_id_with_a_nul_makes_a_bad_row(engine: Engine, tmp_path: Path, kind: str) -> None:
    rows = [{"id": "a", "text": "one \x00"}, {"id": "b\x00", "text": "two"}, {"id": "c", "text": "three"}]
    source = written(tmp_path, rows, kind)
    with pytest.raises(InvalidInput, match=r"rows\.\w+:[23]: the id in 'id' holds a NUL character"):
        submit_batch(engine, Quiet(), source=source, model="ft:x", id_column="id")  # type: ignore[arg-type]
    warnings: list[str] = []
    submit_batch(
        engine,
        Quiet(),
        source=source,
        model="ft:x",
        id_column="id",
        on_bad_row="skip",
        warn=warnings.append,  # type: ignore[arg-type]
    )
    with reading(engine) as connection:
        assert connection.scalars(select(BatchRow.skipped).order_by(BatchRow.no)).all()[-1] == 1


@pytest.mark.parametrize("ids", [["a", "b", "a"], [*map(str, range(30_000)), "29999"]])
def test_an_id_that_stands_for_several_rows_is_named(engine: Engine, tmp_path: Path, ids: list[str]) -> None:
    warnings: list[str] = []
    rows = [{"id": name, "text": f"text {number}"} for number, name in enumerate(ids)]
    submit_batch(engine, Quiet(), source=written(tmp_path, rows), model="ft:x", id_column="id", warn=warnings.append)  # type: ignore[arg-type]
    told = [one for one in warnings if "stands for several rows" in one]
    assert told == (
        [f"the id {ids[-1]!r} stands for several rows: tell results apart by their row number"]
        if len(ids) < 20_000
        else []
    )


def test_a_file_that_counts_its_ids_from_the_start_again_is_noticed() -> None:
    repeated = RepeatedIds()
    for start in range(0, 200_000, 5_000):
        repeated.add([str(number % 100_000) for number in range(start, start + 5_000)])
    assert repeated.example is not None


def test_rows_without_ids_are_no_repetition() -> None:
    repeated = RepeatedIds()
    repeated.add([None, None, "a"])
    assert repeated.example is None
