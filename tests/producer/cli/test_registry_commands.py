"""Promotion and rollback, aliases, notes, thresholds, lineage; actions pending at Mistral are recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection, Engine
from terminal import on_terminal

from labelmill.contracts.errors import InvalidInput, NotFound
from labelmill.core.database import connect, upgrade, writing
from labelmill.core.database.tables import BatchRow, DatasetRow, EvaluationRow, ModelRow, TrainingRow
from labelmill.services import models as registry

SCHEMA = [
    {"name": "intent", "labels": ["play", "stop"], "multi": False},
    {"name": "tags", "labels": ["loud", "rude"], "multi": True},
]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = connect(f"sqlite:///{tmp_path}/test.db")
    upgrade(engine)
    with writing(engine) as connection:
        connection.execute(
            insert(DatasetRow).values(
                id="prep_00000001",
                state="ready",
                name="calls",
                version=3,
                spec={},
                files={"train": "/d/train.jsonl"},
                splits={"train": 9},
                fingerprint="print",
            )
        )
        connection.execute(
            insert(TrainingRow).values(
                id="train_00000001",
                state="succeeded",
                name="m",
                method="factory",
                options={},
                dataset_id="prep_00000001",
                remote_job="job-7",
                remote_files={"train": "file-1"},
            )
        )
        for version in (1, 2, 3):
            connection.execute(
                insert(ModelRow).values(
                    name="m",
                    version=version,
                    method="factory",
                    promoted=version == 1,
                    label_schema=SCHEMA,
                    remote_model=f"ft:classifier:{version}",
                    training_id="train_00000001",
                    dataset_id="prep_00000001",
                    dataset_fingerprint="print",
                )
            )
        connection.execute(
            insert(ModelRow).values(
                name="v",
                version=1,
                method="embedding",
                remote_model="mistral-embed",
                label_schema=SCHEMA,
                promoted=True,
            )
        )
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with writing(engine) as connection:
        yield connection


def promoted(connection: Connection) -> int:
    return registry.resolve_model(connection, "m").version


def model(connection: Connection, version: int) -> ModelRow:
    found = connection.execute(select(ModelRow.__table__).where(ModelRow.name == "m", ModelRow.version == version))
    return ModelRow(**found.mappings().one())


def test_rollback_goes_back_one_promotion_at_a_time(connection: Connection) -> None:
    registry.promote(connection, "m@2")
    registry.promote(connection, "m@3")
    assert registry.rollback(connection, "m").version == 2
    assert promoted(connection) == 2
    assert registry.rollback(connection, "m").version == 1
    with pytest.raises(InvalidInput, match="no other version of m was promoted before"):
        registry.rollback(connection, "m")
    registry.promote(connection, "m@3")
    assert registry.rollback(connection, "m").version == 1


def test_rollback_passes_over_what_was_put_away(connection: Connection) -> None:
    registry.promote(connection, "m@2")
    registry.promote(connection, "m@3")
    registry.archive(connection, "m@2")
    assert registry.rollback(connection, "m").version == 1


def test_rollback_after_the_promoted_version_was_archived(connection: Connection) -> None:
    registry.promote(connection, "m@2")
    registry.archive(connection, "m@2")
    assert registry.rollback(connection, "m").version == 1


def test_a_name_whose_versions_are_all_archived_says_how_one_comes_back(connection: Connection) -> None:
    registry.archive(connection, "v@1")
    for ref in ("v", "v@1"):
        with pytest.raises(InvalidInput, match="is archived: `labelmill models promote v@1` brings it back"):
            registry.resolve_model(connection, ref)


def test_rollback_says_why_there_is_none(connection: Connection) -> None:
    registry.promote(connection, "m@2")
    registry.archive(connection, "m@1")
    with pytest.raises(InvalidInput, match="m@1 is archived"):
        registry.rollback(connection, "m")
    assert promoted(connection) == 2
    with pytest.raises(NotFound):
        registry.rollback(connection, "nobody")


def test_an_alias_stands_for_its_version_wherever_a_version_is_asked_for(connection: Connection) -> None:
    registry.set_alias(connection, "m@2", "champion")
    assert registry.resolve_model(connection, "m@champion").version == 2
    registry.set_alias(connection, "m@3", "champion")
    assert registry.promote(connection, "m@champion").version == 3
    assert [one["aliases"] for one in registry.list_models(connection)] == [[], [], ["champion"], []]
    registry.remove_alias(connection, "m@champion")
    with pytest.raises(InvalidInput, match="or an alias"):
        registry.resolve_model(connection, "m@champion")
    with pytest.raises(NotFound):
        registry.remove_alias(connection, "m@champion")


@pytest.mark.parametrize("alias", ["2", "", "with space", "a@b", "-x"])
def test_what_can_be_no_alias_is_refused(connection: Connection, alias: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be an alias"):
        registry.set_alias(connection, "m@2", alias)


def test_a_deleted_version_takes_its_aliases_along(connection: Connection) -> None:
    registry.set_alias(connection, "m@2", "champion")
    registry.delete(connection, "m@champion")
    with pytest.raises(InvalidInput):
        registry.resolve_model(connection, "m@champion")


def test_a_note_is_shown_until_it_is_removed(connection: Connection) -> None:
    registry.set_note(connection, "m@1", " trained before the holidays ")
    assert registry.lineage(connection, "m@1")["note"] == "trained before the holidays"
    registry.set_note(connection, "m@1", "")
    assert registry.lineage(connection, "m@1")["note"] is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["0.6"], {"intent": 0.6, "tags": {"loud": 0.6, "rude": 0.6}}),
        (["intent=0.7"], {"intent": 0.7}),
        (["tags.rude=0.3"], {"tags": {"rude": 0.3}}),
        (["0.5", "tags.rude=0.3"], {"intent": 0.5, "tags": {"loud": 0.5, "rude": 0.3}}),
    ],
)
def test_thresholds_are_set_by_target_and_by_label(
    connection: Connection, given: list[str], expected: dict[str, Any]
) -> None:
    registry.set_thresholds(connection, "m", given)
    assert registry.resolve_model(connection, "m@1").thresholds == expected
    registry.clear_thresholds(connection, "m")
    assert registry.resolve_model(connection, "m@1").thresholds is None


def test_what_was_set_for_all_before_the_labels_were_known_stays_for_the_other_labels(connection: Connection) -> None:
    schema = registry.resolve_model(connection, "m").label_schema
    connection.execute(update(ModelRow).values(label_schema=None))
    registry.set_thresholds(connection, "m", ["0.6"])
    connection.execute(update(ModelRow).values(label_schema=schema))
    registry.set_thresholds(connection, "m", ["tags.rude=0.3"])
    thresholds = registry.resolve_model(connection, "m").thresholds
    assert thresholds == {"*": 0.6, "tags": {"loud": 0.6, "rude": 0.3}}


@pytest.mark.parametrize("given", ["1.5", "nan", "high", "mood=0.5", "intent.play=0.5", "tags.nice=0.5"])
def test_thresholds_that_mean_nothing_are_refused(connection: Connection, given: str) -> None:
    with pytest.raises(InvalidInput):
        registry.set_thresholds(connection, "m", [given])
    assert registry.resolve_model(connection, "m").thresholds is None


def test_lineage_leads_from_the_dataset_to_the_batches(connection: Connection) -> None:
    number = model(connection, 1).no
    connection.execute(
        insert(BatchRow).values(
            id="batch_00000001", state="completed", model_no=number, model_ref="m", options={}, rows=7
        )
    )
    for job_id, metrics in (
        ("eval_00000001", {"intent": {"accuracy": 0.5, "macro_f1": 0.4}}),
        ("eval_00000002", {"intent": {"accuracy": 0.9, "macro_f1": 0.8}}),
    ):
        connection.execute(
            insert(EvaluationRow).values(
                id=job_id,
                state="completed",
                model_no=number,
                model_ref="m",
                split="test",
                dataset_id="prep_00000001",
                dataset_ref="calls@3",
                metrics=metrics,
            )
        )
    found = registry.lineage(connection, "m")
    assert found["dataset"] == {
        "id": "prep_00000001",
        "dataset": "calls@3",
        "fingerprint": "print",
        "files": {"train": "/d/train.jsonl"},
        "splits": {"train": 9},
    }
    assert (found["training"]["remote_job"], found["training"]["remote_files"]) == ("job-7", {"train": "file-1"})
    assert (found["batches"]["count"], found["batches"]["latest"][0]["rows"]) == (1, 7)
    assert [one["id"] for one in found["evaluations"]] == ["eval_00000002", "eval_00000001"]
    assert found["evaluated"]["targets"]["intent"]["accuracy"] == 0.9
    assert registry.list_models(connection)[0]["evaluated"]["id"] == "eval_00000002"


def test_a_multi_label_target_is_listed_with_its_micro_f1(connection: Connection, engine: Engine) -> None:
    metrics = {
        "intent": {"accuracy": 0.9, "macro_f1": 0.8, "micro_f1": 0.9},
        "tags": {"accuracy": 0.2, "macro_f1": 0.3, "micro_f1": 0.512},
    }
    connection.execute(
        insert(EvaluationRow).values(
            id="eval_00000001",
            state="completed",
            model_no=model(connection, 1).no,
            model_ref="m",
            split="test",
            dataset_id="prep_00000001",
            dataset_ref="calls@3",
            metrics=metrics,
        )
    )
    connection.commit()
    url = engine.url.render_as_string()
    shown = on_terminal("models", columns=300, LABELMILL_DATABASE_URL=url)
    assert "accuracy 0.900, micro F1 0.512 on calls@3 test" in shown.text, shown.text


def test_putting_away_a_fine_tuned_model_is_owed_to_mistral(connection: Connection) -> None:
    assert registry.archive(connection, "m@2").remote_wish == "archive"
    assert registry.archive(connection, "m@3", at_mistral=False).remote_wish is None
    assert registry.promote(connection, "m@2").remote_wish == "unarchive"
    with pytest.raises(InvalidInput, match="being brought back at Mistral"):
        registry.resolve_model(connection, "m@2")
    assert registry.delete(connection, "m@3").remote_wish == "delete"
    assert registry.archive(connection, "v@1").remote_wish is None  # mistral-embed is everybody's


def test_a_model_that_another_version_in_use_shares_is_left_alone_at_mistral(connection: Connection) -> None:
    registry.register(connection, "same", "ft:classifier:2")
    assert registry.delete(connection, "m@2").remote_wish is None
    assert registry.delete(connection, "same@1").remote_wish == "delete"


def test_jobs_under_way_keep_a_version_and_are_named(connection: Connection) -> None:
    raw = registry.resolve_model(connection, "ft:classifier:2")
    connection.execute(
        insert(BatchRow).values(id="batch_00000009", state="running", model_no=raw.no, model_ref="x", options={})
    )
    connection.execute(
        insert(EvaluationRow).values(
            id="eval_00000009",
            state="queued",
            model_no=model(connection, 2).no,
            model_ref="m",
            split="test",
            dataset_id="prep_00000001",
            dataset_ref="calls@3",
        )
    )
    for retire in (registry.delete, registry.archive):
        with pytest.raises(InvalidInput, match="eval_00000009, batch_00000009 use m@2"):
            retire(connection, "m@2")
    assert registry.delete(connection, "m@3").state == "ready"  # as it was before
