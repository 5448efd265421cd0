"""Submitting a preparation: what is refused at once, what is copied and written."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asked import refused, submit_prepare
from sqlalchemy import select
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.specs import FileFormat, PrepareSpec
from labelmill.core.database import connect, reading, upgrade
from labelmill.core.database.tables import DatasetRow
from labelmill.core.queue.sender import MessageSender
from labelmill.core.readers import known_sources, read_rows
from labelmill.core.settings import Settings
from labelmill.services.datasets import parse_split, parse_target


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = connect(f"sqlite:///{tmp_path / 'test.db'}")
    upgrade(engine)
    yield engine
    engine.dispose()


class Submission:
    """Submits with Redis down: nothing listens on port 1."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.settings = Settings(
            data_dir=str(folder / "data"),
            broker_url="redis://127.0.0.1:1/0",
            _env_file=None,  # type: ignore[call-arg]
        )
        self.warnings: list[str] = []

    def __call__(self, source: Path | str, **options: Any) -> DatasetRow:
        given: dict[str, Any] = {"name": "intents", "targets": ["intent=label"], "warn": self.warnings.append} | options
        job_id = submit_prepare(
            self.engine, MessageSender.connect(self.settings), self.settings, source=str(source), **given
        )
        with reading(self.engine) as connection:
            return DatasetRow(
                **connection.execute(select(DatasetRow.__table__).where(DatasetRow.id == job_id)).mappings().one()
            )


@pytest.fixture
def submit(engine: Engine, tmp_path: Path) -> Submission:
    return Submission(engine, tmp_path)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"text": "hi", "label": "a", "lang": "en"}) + "\n")
    return file


def test_with_redis_down_it_is_accepted_with_a_warning_and_the_file_copied(submit: Submission, rows: Path) -> None:
    row = submit(rows, where=["lang=en=x"], split="80/20/0")
    assert row.state == "queued"
    assert ["Redis" in warning for warning in submit.warnings] == [True]
    assert (submit.settings.data_path / row.spec["files"][0]).read_bytes() == rows.read_bytes()
    assert row.spec["where"] == [["lang", "en=x"]]
    assert row.spec["split"] == [80, 20, 0]


def test_files_of_one_name_from_several_folders_are_all_copied(submit: Submission, rows: Path, tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "rows.jsonl").write_bytes(rows.read_bytes())
    assert len(set(submit(f"{tmp_path}/in/*/rows.jsonl").spec["files"])) == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"source": "none.jsonl"}, "there is no file"),
        ({"source": "hf:"}, "no dataset of the hub"),
        ({"targets": ["intent=labl"]}, r"no column 'labl'; it has 'text', 'label', 'lang'"),
        ({"text": "txt"}, "no column 'txt'"),
        ({"where": ["lng=en"]}, "no column 'lng'"),
        ({"where": ["lang"]}, "--where"),
        ({"targets": []}, "--target"),
        ({"targets": ["intent"]}, "--target"),
        ({"targets": ["a=label", "a=lang"]}, "same name"),
        ({"split": "80/10"}, "--split"),
        ({"split": "0/0/0"}, "--split"),
        ({"min_per_label": 0}, "--min-per-label"),
        ({"min_per_label": 9, "max_per_label": 3}, "above --max-per-label"),
        ({"name": "a@1"}, "cannot be the name of a dataset"),
        ({"seed": -1}, "--seed"),
        ({"format": "factory", "targets": []}, "no column 'labels'"),
        ({"format": "factory"}, "no --target"),
        ({"separator": ";"}, "--separator parts the labels of a multi-label target"),
    ],
)
def test_what_is_wrong_is_said_at_once_and_leaves_nothing(
    submit: Submission, rows: Path, options: dict[str, Any], sentence: str
) -> None:
    with refused(sentence):
        submit(**{"source": rows} | options)
    assert not (submit.settings.data_path / "sources").exists()


def test_targets_and_splits_are_read_from_their_short_forms() -> None:
    target = parse_target("mood=a:b:multi")
    assert (target.name, target.column, target.multi) == ("mood", "a:b", True)
    assert parse_split("0.8/0.1/0.1") == (0.8, 0.1, 0.1)


def test_a_pipe_is_read_once_and_its_copy_is_what_workers_read(
    submit: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = "text;label\ngr\xf6\xdfer;a\n".encode("cp1252")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    job = submit("-", encoding="cp1252")
    spec = PrepareSpec.read(job.spec)
    assert spec.formats == (FileFormat(kind="csv", encoding="cp1252", delimiter=";"),)
    copy = submit.settings.data_path / spec.files[0]
    assert copy.read_bytes() == content
    rows = read_rows(known_sources([copy], spec.formats, spec.reading), columns=["text"], on_bad_row=print)
    assert [row.values for row in rows] == [{"text": "gr\xf6\xdfer"}]


def test_a_pipe_that_lacks_a_column_leaves_no_copy(submit: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"text,x\na,b\n")))
    with pytest.raises(InvalidInput, match="<stdin> has no column 'label'"):
        submit("-")
    assert list((submit.settings.data_path / "sources").iterdir()) == []


def test_options_of_files_are_refused_for_datasets_of_the_hub(submit: Submission) -> None:
    with pytest.raises(InvalidInput, match="not for datasets of the hub"):
        submit("hf:owner/name", delimiter=";")
