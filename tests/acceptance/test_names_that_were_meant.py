"""A name that there is not: what was meant is named, and what it waits for."""

from __future__ import annotations

import pytest
from command_line import Run
from sqlalchemy import insert

from labelmill.contracts.near_matches import did_you_mean, near_matches
from labelmill.core.database import connect, writing
from labelmill.core.database.tables import DatasetRow, ModelRow, TrainingRow

pytestmark = pytest.mark.acceptance


@pytest.fixture(autouse=True)
def _registry(run: Run) -> None:
    del run  # has made the database
    engine = connect("sqlite:///jobs.db")
    with writing(engine) as connection:
        connection.execute(
            insert(ModelRow).values(name="intents", version=1, method="embedding", promoted=True, label_schema=[])
        )
        for number, (name, state) in enumerate((("tickets", "ready"), ("calls", "preparing"), ("mails", "failed"))):
            values = {"id": f"prep_{number}", "name": name, "state": state, "spec": {}}
            connection.execute(insert(DatasetRow).values(**values, version=1 if state == "ready" else None))
        for number, (name, state) in enumerate(
            (("fac", "awaiting_approval"), ("slow", "running"), ("bad", "failed"), ("intents", "running"))
        ):
            values = {"id": f"train_{number}", "name": name, "state": state, "method": "factory", "options": {}}
            connection.execute(insert(TrainingRow).values(**values, dataset_id="prep_0"))
    engine.dispose()


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("clasify good.jsonl", "Did you mean 'classify'?"),
        ("models promot intents@1", "Did you mean 'promote'"),
        ("classify good.jsonl --model intent", "there is no model 'intent': did you mean intents?"),
        ("classify good.jsonl --model Intents", "did you mean intents?"),
        ("classify good.jsonl --model intent@1", "did you mean intents?"),
        ("classify good.jsonl --model zzz", "there is no model 'zzz'; `labelmill models` lists them"),
        ("classify good.jsonl --model fac", "'fac' waits for approval: labelmill approve train_0"),
        ("classify good.jsonl --model fac@1", "fac@1 waits for approval: labelmill approve train_0"),
        (
            "classify good.jsonl --model slow",
            "'slow' is not ready yet, its training is running: labelmill watch train_",
        ),
        ("classify good.jsonl --model bad", "there is no model 'bad': its training train_2 failed"),
        ("train m --dataset ticket", "no dataset 'ticket' is ready: did you mean tickets?"),
        ("train m --dataset calls", "'calls' is not ready yet, it is preparing: labelmill watch prep_1"),
        ("train m --dataset mails", "no dataset 'mails' is ready: prep_2 failed"),
        ("evaluate intents --dataset Tickets", "did you mean tickets?"),
        ("classify good.jsonl --model intents --text txt", "it has 'id', 'text', 'intent': did you mean 'text'?"),
        ("classify body.csv --model intents", "it has 'body', 'label'; --text names the column of the texts"),
        ("prepare d body.csv --target x=label", "--text names the column of the texts"),
        ("prepare d good.jsonl --target x=intents", "did you mean 'intent'?"),
    ],
)
def test_what_was_meant_is_named(run: Run, command: str, sentence: str) -> None:
    with open("body.csv", "w") as file:  # noqa: PTH123 - short
        file.write("body,label\na,b\n")
    ended = run(*command.split())
    assert ended.code == 2
    assert sentence in ended.sentence


def test_a_model_that_is_there_is_used_while_another_version_trains(run: Run) -> None:
    assert run("classify", "good.jsonl", "--model", "intents").code == 0


def test_only_names_that_are_near_are_offered() -> None:
    names = ["classify", "Intents", "intents-2", "évaluer"]
    assert near_matches("INTENTS", names)[0] == "Intents"
    assert near_matches("", names) == near_matches("x" * 10_000, names) == []
    assert did_you_mean("evaluer", names) == ": did you mean évaluer?"
