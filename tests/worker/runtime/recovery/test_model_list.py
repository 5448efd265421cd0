"""Mistral's list of models is read now and then, and what it changes is told."""

from __future__ import annotations

import threading

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Engine
from structlog.testing import capture_logs

from labelmill.contracts.errors import RemoteUnavailable
from labelmill.core.database import db_now, reading, writing
from labelmill.core.database.tables import LockRow, ModelRow
from labelmill.core.jobs.events import read_events
from labelmill.core.remote_models import ASKED_AS, read_list
from labelmill.core.settings import Settings
from labelmill_worker.ports.control_plane import RemoteModel
from labelmill_worker.runtime.recovery.model_list import LEASE, ModelListReader
from labelmill_worker.store.remote_models import keep_models

SMALL, MODERATION = "mistral-small-latest", "mistral-moderation-latest"


def models(**meanings: str) -> list[RemoteModel]:
    """`small="mistral-small-2603"`: the latest small model is that one."""
    pairs = [(f"mistral-{name}-latest", dated) for name, dated in meanings.items()]
    return [model for name, dated in pairs for model in (listed(name, dated), listed(dated, name))]


def listed(name: str, alias: str) -> RemoteModel:
    return RemoteModel(name, aliases=(alias,))


def settings_of(engine: Engine) -> Settings:
    url = engine.url.render_as_string(hide_password=False)
    return Settings(database_url=url, MISTRAL_API_KEY="any", mistral_url="http://127.0.0.1:1")  # type: ignore[call-arg]


def read_with(engine: Engine, read: list[RemoteModel] | Exception) -> list[int]:
    """What a worker that starts now does; a number for each time that it asked Mistral."""
    asked: list[int] = []

    def ask(_: Settings) -> list[RemoteModel]:
        asked.append(1)
        if isinstance(read, Exception):
            raise read
        return read

    ModelListReader(settings_of(engine), ask).read_if_due(engine)
    for thread in threading.enumerate():
        if thread.name == "model-list":
            thread.join(30)
    return asked


def lease_is_over(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(update(LockRow).where(LockRow.name == LEASE).values(lease_until=db_now() - 1))


def told(engine: Engine) -> list[str]:
    return [event.message for event in read_events(engine)]


def test_one_worker_of_the_fleet_reads_the_list_and_again_when_it_is_old(engine: Engine) -> None:
    known = models(small="mistral-small-2603")
    assert read_with(engine, known) == [1]
    assert read_with(engine, known) == [], "it was read a moment ago"
    with reading(engine) as connection:
        assert {model.id for model in read_list(connection)} == {SMALL, "mistral-small-2603"}
    lease_is_over(engine)
    assert read_with(engine, known) == [1]


def test_a_list_that_cannot_be_read_stays_as_it_was_and_is_read_again_soon(engine: Engine) -> None:
    keep_models(engine, models(small="mistral-small-2603"))
    with capture_logs() as logs:
        assert read_with(engine, RemoteUnavailable("no connection")) == [1]
    assert [line["reason"] for line in logs] == ["no connection"]
    with reading(engine) as connection:
        assert len(read_list(connection)) == 2
        due_in_s = connection.scalar(select(LockRow.lease_until - db_now()).where(LockRow.name == LEASE))
    assert 200 < float(due_in_s or 0) <= 300


def test_a_name_that_moves_is_noted_once_in_the_history_of_each_version_that_was_made_by_it(engine: Engine) -> None:
    with writing(engine) as connection:
        for number, recipe in enumerate(({ASKED_AS: SMALL}, {ASKED_AS: SMALL}, None), start=1):
            connection.execute(
                insert(ModelRow).values(
                    name="intents",
                    version=number,
                    state="ready",
                    promoted=False,
                    method="embedding",
                    remote_model="mistral-small-2603",
                    recipe=recipe,
                )
            )
    keep_models(engine, models(small="mistral-small-2603"))
    assert told(engine) == []
    with capture_logs() as logs:
        keep_models(engine, models(small="mistral-small-2609"))
        keep_models(engine, models(small="mistral-small-2609"))
        keep_models(engine, [])  # a list that tells nothing changes nothing
        keep_models(engine, models(small="mistral-small-2603"))
    assert told(engine) == [
        f"{SMALL} means mistral-small-2609 at Mistral by now; intents@{number} goes on asking mistral-small-2603: "
        "train it again to move"
        for number in (1, 2)
    ]
    assert len(logs) == 2


def test_a_batch_that_was_submitted_before_any_list_was_known_is_pinned_by_the_first(engine: Engine) -> None:
    with writing(engine) as connection:
        for name in (MODERATION, "mistral-moderation-2603"):
            connection.execute(
                insert(ModelRow).values(
                    name=name, version=0, state="ready", promoted=False, method="moderation", remote_model=name
                )
            )
    keep_models(engine, models(moderation="mistral-moderation-2603"))
    keep_models(engine, models(moderation="mistral-moderation-2609"))
    with reading(engine) as connection:
        asked = connection.execute(select(ModelRow.name, ModelRow.remote_model).order_by(ModelRow.no)).all()
    assert [tuple(row) for row in asked] == [
        (MODERATION, "mistral-moderation-2603"),
        ("mistral-moderation-2603", "mistral-moderation-2603"),
    ]
    assert told(engine)[0] == f"asks mistral-moderation-2603 from now on, which {MODERATION} means at Mistral"
