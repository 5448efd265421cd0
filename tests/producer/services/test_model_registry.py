"""Models by name, by version and by Mistral's id; and what may be submitted for training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asked import approve, refused, submit_training
from sqlalchemy import insert, select
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import BrokerUnavailable, InvalidInput, LabelmillError, NotFound
from labelmill.core.database import connect, reading, upgrade, writing
from labelmill.core.database.tables import BatchRow, DatasetRow, ModelRow, TrainingRow
from labelmill.core.queue.sender import MessageSender
from labelmill.services.models import archive, delete, list_models, promote, resolve_model


class DeadRedis(MessageSender):
    def __init__(self) -> None:
        pass

    def send(self, *args: Any, **options: Any) -> None:
        raise BrokerUnavailable("Redis cannot be reached")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = connect(f"sqlite:///{tmp_path}/test.db")
    upgrade(engine)
    with writing(engine) as connection:
        for version in (1, 2):
            connection.execute(
                insert(ModelRow).values(
                    name="intents",
                    version=version,
                    method="factory",
                    promoted=version == 1,
                    remote_model=f"ft:x{version}",
                )
            )
        for version, state in ((1, "ready"), (2, "failed")):
            connection.execute(
                insert(DatasetRow).values(
                    id=f"prep_0000000{version}",
                    name="small",
                    version=version,
                    state=state,
                    spec={},
                    splits={"train": 5},
                    files={"train": "train.jsonl"},
                )
            )
    yield engine
    engine.dispose()


def test_a_bare_name_means_the_promoted_version(engine: Engine) -> None:
    with writing(engine) as connection:
        assert resolve_model(connection, "intents").version == 1
        assert resolve_model(connection, "intents@2").version == 2
        promote(connection, "intents@2")
        assert resolve_model(connection, "intents").version == 2
        assert [model["promoted"] for model in list_models(connection)] == [False, True]


@pytest.mark.parametrize("ref", ["nothing", "intents@3", ""])
def test_an_unknown_model_is_not_found(engine: Engine, ref: str) -> None:
    with writing(engine) as connection, pytest.raises(NotFound):
        resolve_model(connection, ref)


@pytest.mark.parametrize("ref", ["intents@", "intents@latest", "@1"])
def test_a_version_that_is_none_is_refused(engine: Engine, ref: str) -> None:
    with writing(engine) as connection, pytest.raises(InvalidInput):
        resolve_model(connection, ref)


def test_a_raw_id_becomes_one_row_however_often_it_is_used(engine: Engine) -> None:
    with writing(engine) as connection:
        first = resolve_model(connection, "ft:classifier:abc:1")
        assert resolve_model(connection, "ft:classifier:abc:1").no == first.no
    assert (first.version, first.remote_model, first.label_schema) == (0, "ft:classifier:abc:1", None)


def test_an_archived_version_is_unusable_until_it_is_promoted(engine: Engine) -> None:
    with writing(engine) as connection:
        archive(connection, "intents@1")
        with pytest.raises(NotFound, match="no version of intents is promoted"):
            resolve_model(connection, "intents")
        with pytest.raises(InvalidInput, match="archived"):
            resolve_model(connection, "intents@1")
        promote(connection, "intents@1")
        assert resolve_model(connection, "intents").version == 1


def test_a_model_is_not_deleted_while_a_batch_runs_on_it(engine: Engine) -> None:
    with writing(engine) as connection:
        number = resolve_model(connection, "intents@1").no
        connection.execute(
            insert(BatchRow).values(
                id="batch_00000001", state="running", model_no=number, model_ref="intents@1", options={}
            )
        )
        with pytest.raises(InvalidInput, match="batch_00000001"):
            delete(connection, "intents@1")
        delete(connection, "intents@2")
        with pytest.raises(NotFound):
            resolve_model(connection, "intents@2")
        with pytest.raises(InvalidInput, match="name the version"):
            delete(connection, "intents")


GOOD: dict[str, Any] = {"name": "intents", "dataset": "small", "method": "factory"}


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"dataset": "large"}, NotFound, "large"),
        ({"dataset": "small@2"}, NotFound, "small@2"),
        ({"method": "magic"}, InvalidInput, "embedding, factory, prompt"),
        ({"method": "prompt", "steps": 5}, InvalidInput, "--steps goes with --method factory"),
        ({"shots": 3}, InvalidInput, "--shots goes with --method prompt"),
        (
            {"method": "embedding", "wandb_project": "labels"},
            InvalidInput,
            "--wandb-project goes with --method factory, not with embedding",
        ),
        ({"method": "prompt", "shots": 30}, InvalidInput, "--shots"),
        ({"method": "prompt", "shot_selection": "nearest"}, InvalidInput, "needs --shots"),
        ({"method": "prompt", "descriptions": {"misic": "songs"}}, InvalidInput, "'misic' is described"),
        ({"target_weights": {"itnent": 2.0}}, InvalidInput, "--target-weight names 'itnent'"),
        ({"suffix": "much-too-long-a-suffix"}, InvalidInput, "--suffix"),
        ({"steps": 0}, InvalidInput, "--steps"),
        ({"learning_rate": -1}, InvalidInput, "--learning-rate"),
        ({"max_cost": float("nan")}, InvalidInput, "--max-cost"),
        ({"name": "a@1"}, InvalidInput, "a@1"),
        ({"name": "ft:classifier:x"}, InvalidInput, "cannot be the name"),
    ],
)
def test_what_is_wrong_with_a_training_is_said_before_anything_is_queued(
    engine: Engine, changed: dict[str, Any], error: type[LabelmillError], words: str
) -> None:
    with refused(words, error):
        submit_training(engine, DeadRedis(), **{**GOOD, **changed})
    with reading(engine) as connection:
        assert connection.execute(select(TrainingRow.id)).all() == []


def test_with_redis_down_a_training_is_accepted_with_a_warning(engine: Engine) -> None:
    warnings: list[str] = []
    training_id = submit_training(engine, DeadRedis(), **GOOD, warn=warnings.append)
    assert len(warnings) == 1
    with pytest.raises(InvalidInput, match="queued"):
        approve(engine, DeadRedis(), training_id)
    with pytest.raises(NotFound):
        approve(engine, DeadRedis(), "train_00000000")
