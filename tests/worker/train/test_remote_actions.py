"""Models put away at Mistral: through the SDK, against the emulator, whatever goes wrong on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from memory_mistral import MemoryMistral
from sqlalchemy import insert, select, update
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import CredentialsRefused, RemoteUnavailable, RequestRefused
from labelmill.contracts.ids import model_work_id
from labelmill.contracts.messages import TRAIN, JobMessage
from labelmill.core.database import db_now, reading, writing
from labelmill.core.database.tables import ModelRow
from labelmill.core.settings import Settings
from labelmill.services import models as registry
from labelmill_worker.runtime.bootstrap import ProcessResources
from labelmill_worker.runtime.recovery.sweep import sweep_if_due
from labelmill_worker.runtime.tasks import train
from labelmill_worker.store.faults import MAX_FAULTS
from labelmill_worker.train.remote_actions import carry_out_action


class Mistral(MemoryMistral):
    """Has one model; faults are raised one by one, `before` an action is carried out or `after`."""

    def __init__(self) -> None:
        super().__init__()
        self.models = {"ft:classifier:1": False}
        self.calls: list[str] = []
        self.before: list[Exception] = []
        self.after: list[Exception] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.before_call, self.after_call = self._begin, self._end

    def _begin(self, name: str) -> None:
        self.calls.append(name.removesuffix("_model"))
        if self.before:
            raise self.before.pop(0)

    def _end(self, name: str) -> None:
        del name
        self.meanwhile()
        if self.after:
            raise self.after.pop(0)


class Sent:
    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []

    def send(self, task: str, messages: list[JobMessage], **_: Any) -> None:
        self.messages += [(task, message.job_id) for message in messages]


@pytest.fixture
def mistral() -> Mistral:
    return Mistral()


def act(engine: Engine, what: Callable[..., ModelRow]) -> None:
    with writing(engine) as connection:
        what(connection, "m@1")


def now(engine: Engine) -> ModelRow:
    with reading(engine) as connection:
        return ModelRow(**connection.execute(select(ModelRow.__table__)).mappings().one())


def work(engine: Engine, mistral: Mistral) -> ModelRow:
    with writing(engine) as connection:
        number = connection.scalar(select(ModelRow.no))
    carry_out_action(engine, lambda: mistral, int(number or 0))
    return now(engine)


@pytest.fixture
def ready(engine: Engine) -> Engine:
    with writing(engine) as connection:
        connection.execute(
            insert(ModelRow).values(
                name="m", version=1, method="factory", promoted=True, remote_model="ft:classifier:1"
            )
        )
    return engine


def test_archived_brought_back_and_deleted(ready: Engine, mistral: Mistral) -> None:
    act(ready, registry.archive)
    row = work(ready, mistral)
    assert (row.state, row.remote_state, row.remote_wish, mistral.models) == (
        "archived",
        "archived",
        None,
        {"ft:classifier:1": True},
    )
    act(ready, registry.promote)
    row = work(ready, mistral)
    assert (row.state, row.remote_state, mistral.models) == ("ready", None, {"ft:classifier:1": False})
    act(ready, registry.delete)
    row = work(ready, mistral)
    assert (row.state, row.remote_state, mistral.models) == ("deleted", "deleted", {})
    assert work(ready, mistral).remote_wish is None
    assert mistral.calls == ["archive", "unarchive", "delete"]


def test_a_fault_of_ours_is_tried_again_some_times_and_then_told(ready: Engine, mistral: Mistral) -> None:
    act(ready, registry.archive)
    mistral.before += [cast("Any", ZeroDivisionError())] * MAX_FAULTS
    for _ in range(MAX_FAULTS):
        assert now(ready).remote_wish is not None
        with pytest.raises(ZeroDivisionError):
            work(ready, mistral)
    assert now(ready).remote_wish is None
    assert "ZeroDivisionError, 5 times" in str(now(ready).remote_error)


def test_a_key_that_is_refused_here_is_tried_by_another_worker_soon(ready: Engine, mistral: Mistral) -> None:
    act(ready, registry.archive)
    mistral.before.append(CredentialsRefused("bad key"))
    carry_out_action(ready, lambda: mistral, now(ready).no, lambda error: True)
    with reading(ready) as connection:
        in_s = connection.scalar(select(ModelRow.next_look_at - db_now()))
    assert in_s is not None
    assert in_s < 5


@pytest.mark.parametrize("act_on_model", [registry.archive, registry.delete])
def test_an_answer_that_was_lost_does_no_harm(
    ready: Engine, mistral: Mistral, act_on_model: Callable[..., ModelRow]
) -> None:
    act(ready, act_on_model)
    mistral.after.append(RemoteUnavailable("no answer"))
    row = work(ready, mistral)
    assert row.remote_wish is not None
    assert row.remote_error == "no answer"
    row = work(ready, mistral)
    assert (row.remote_wish, row.remote_error) == (None, None)
    assert row.remote_state in ("archived", "deleted")


def test_a_refusal_is_kept_and_not_repeated(ready: Engine, mistral: Mistral) -> None:
    act(ready, registry.archive)
    mistral.before.append(RequestRefused("not yours", 400))
    row = work(ready, mistral)
    assert (row.remote_wish, row.remote_state, row.remote_error) == (None, None, "not yours")
    with reading(ready) as connection:
        lines = registry.lineage(connection, "m@1")["at_mistral"]
    assert "could not archive it at Mistral: not yours" in lines[-1]["message"]
    assert len(mistral.calls) == 1


def test_a_key_that_is_refused_leaves_the_action_pending(ready: Engine, mistral: Mistral) -> None:
    act(ready, registry.archive)
    mistral.before.append(CredentialsRefused("bad key"))
    assert work(ready, mistral).remote_wish == "archive"
    assert work(ready, mistral).remote_state == "archived"


def test_an_action_that_changes_while_it_is_carried_out_is_carried_out_too(ready: Engine, mistral: Mistral) -> None:
    act(ready, registry.archive)

    def change_mind() -> None:
        mistral.meanwhile = lambda: None
        act(ready, registry.promote)

    mistral.meanwhile = change_mind
    row = work(ready, mistral)
    assert mistral.calls == ["archive", "unarchive"]
    assert (row.state, row.remote_state, row.remote_wish) == ("ready", None, None)
    assert mistral.models == {"ft:classifier:1": False}


def test_two_workers_do_not_do_it_twice(ready: Engine, mistral: Mistral) -> None:
    act(ready, registry.archive)
    mistral.meanwhile = lambda: carry_out_action(ready, lambda: mistral, now(ready).no)
    work(ready, mistral)
    assert mistral.calls == ["archive"]


def test_a_sweep_sends_an_action_whose_message_was_lost(ready: Engine, mistral: Mistral, redis_url: str) -> None:
    act(ready, registry.archive)
    row = now(ready)
    sent = Sent()
    resources = ProcessResources(Settings(broker_url=redis_url, sweep_s=0.001), ready, cast("Any", sent), mistral)
    sweep_if_due(resources.engine, resources.sender, resources.settings)
    assert sent.messages == []  # its message may be on its way
    with writing(ready) as connection:
        connection.execute(update(ModelRow).values(next_look_at=ModelRow.next_look_at - 60))
    while not sent.messages:
        sweep_if_due(resources.engine, resources.sender, resources.settings)
    assert sent.messages == [(TRAIN, model_work_id(row.no))]
    train.run(resources, JobMessage(job_id=sent.messages[0][1]))
    assert now(ready).remote_state == "archived"
