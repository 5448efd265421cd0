"""What Mistral's list says of names, and of versions that ask them."""

from __future__ import annotations

import pytest
from sqlalchemy import update
from sqlalchemy.engine import Engine

from labelmill.core.database import reading, writing
from labelmill.core.database.tables import ModelRow
from labelmill.core.jobs.events import read_events
from labelmill.core.remote_models import (
    ASKED_AS,
    Listed,
    deprecation_of,
    keep_list,
    meaning_of,
    names_of,
    read_list,
    warnings_of,
)
from labelmill.services.models import asked_model, find_version, list_models, register
from labelmill.services.models.asked import AskedModel

LIST = [
    Listed("mistral-small-2603", ("mistral-small-latest",)),
    Listed("mistral-small-latest", ("mistral-small-2603",)),
    Listed("mistral-medium-3-5", ("mistral-medium-latest",)),
    Listed("mistral-medium-latest", ("mistral-medium-3-5",)),
    Listed("mistral-embed", ("mistral-embed-2312",)),
    Listed("ministral-8b-2410", ("ministral-8b-old",), "2026-12-31T00:00:00+00:00", "ministral-8b-2512"),
]


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("mistral-small-latest", "mistral-small-2603"),
        ("mistral-small-2603", "mistral-small-2603"),
        ("mistral-medium-latest", "mistral-medium-3-5"),
        ("mistral-medium-3-5", "mistral-medium-3-5"),
        ("mistral-embed", "mistral-embed-2312"),
        ("unknown-latest", "unknown-latest"),
    ],
)
def test_a_name_means_the_dated_model_or_else_the_fixed_name(name: str, meaning: str) -> None:
    assert meaning_of(name, LIST) == meaning
    assert meaning_of(name, LIST[::-1]) == meaning


@pytest.mark.parametrize("listed", [LIST, []], ids=["by Mistral's list", "by the price list"])
@pytest.mark.parametrize("name", ["mistral-small-latest", "mistral-small-2603"])
def test_a_model_has_all_names_that_mean_it(name: str, listed: list[Listed]) -> None:
    assert names_of(name, listed) == {"mistral-small-latest", "mistral-small-2603"}
    assert names_of("mistral-small-2506", listed) == {"mistral-small-2506"}


def version(remote_model: str, **recipe: str) -> ModelRow:
    return ModelRow(name="intents", version=2, remote_model=remote_model, recipe=recipe or None)


def test_a_user_is_told_when_a_name_means_another_model_than_at_training() -> None:
    pinned = version("mistral-small-2506", **{ASKED_AS: "mistral-small-latest"})
    (said,) = warnings_of(pinned, LIST)
    assert said.startswith("mistral-small-latest means mistral-small-2603 at Mistral by now; intents@2 goes on asking")
    assert warnings_of(version("mistral-small-2603", **{ASKED_AS: "mistral-small-latest"}), LIST) == []
    assert warnings_of(pinned, []) == [], "nothing is known"


def test_a_user_is_told_of_a_model_that_mistral_retires_and_of_its_replacement() -> None:
    (said,) = warnings_of(version("ministral-8b-2410"), LIST)
    assert said == (
        "intents@2 asks ministral-8b-2410, which Mistral retires on 2026-12-31; Mistral names ministral-8b-2512 as its "
        "replacement"
    )
    assert deprecation_of("mistral-small-2603", LIST) is None


def test_the_list_is_replaced_as_a_whole(engine: Engine) -> None:
    with writing(engine) as connection:
        keep_list(connection, LIST)
        keep_list(connection, [*LIST[:2], LIST[0]])
    with reading(engine) as connection:
        assert sorted(read_list(connection), key=lambda model: model.id) == LIST[:2]


MODERATION = [
    Listed("mistral-moderation-2603", ("mistral-moderation-latest",)),
    Listed("mistral-moderation-latest", ("mistral-moderation-2603",)),
]
MOVED = [
    Listed("mistral-moderation-2603"),
    Listed("mistral-moderation-2609", ("mistral-moderation-latest",)),
    Listed("mistral-moderation-latest", ("mistral-moderation-2609",)),
]


def know(engine: Engine, models: list[Listed]) -> None:
    with writing(engine) as connection:
        keep_list(connection, models)


def asked(engine: Engine, ref: str) -> AskedModel:
    with writing(engine) as connection:
        return asked_model(connection, ref)


def said_by(model: AskedModel) -> list[str]:
    return [warning.sentence for warning in model.warnings]


def test_a_submission_by_a_moving_name_asks_the_model_that_it_means_and_tells_when_that_changes(engine: Engine) -> None:
    know(engine, MODERATION)
    first = asked(engine, "mistral-moderation-latest")
    assert (first.row.name, first.row.remote_model) == ("mistral-moderation-2603", "mistral-moderation-2603")
    assert first.pinned == "asks mistral-moderation-2603, which mistral-moderation-latest means at Mistral now"
    assert said_by(first) == []
    know(engine, MOVED)
    with reading(engine) as connection:
        (entry,) = list_models(connection)
    (said,) = entry["warnings"]
    assert said.endswith("at Mistral by now, and jobs under this name asked mistral-moderation-2603 so far")
    assert asked(engine, "mistral-moderation-2603").warnings == (), "asked for by its own id it is what it was"
    second = asked(engine, "mistral-moderation-latest")
    assert second.row.name == "mistral-moderation-2609"
    moved = (
        "mistral-moderation-latest means mistral-moderation-2609 at Mistral by now; earlier jobs asked "
        "mistral-moderation-2603"
    )
    assert said_by(second) == [moved]
    assert moved in [event.message for event in read_events(engine)]
    assert said_by(asked(engine, "mistral-moderation-latest")) == [], "it is told once"
    with reading(engine) as connection:
        assert [entry["warnings"] for entry in list_models(connection)] == [[], []]


def test_a_model_that_was_used_by_a_moving_name_keeps_its_thresholds_when_it_is_pinned(engine: Engine) -> None:
    unknown = asked(engine, "mistral-moderation-latest")
    assert (unknown.row.remote_model, unknown.pinned) == ("mistral-moderation-latest", None)
    with writing(engine) as connection:
        values = {"thresholds": {"moderation": 0.7}}
        connection.execute(update(ModelRow).where(ModelRow.no == unknown.row.no).values(values))
    know(engine, MODERATION)
    pinned = asked(engine, "mistral-moderation-latest").row
    assert (pinned.no, pinned.name, pinned.remote_model) == (unknown.row.no, *["mistral-moderation-2603"] * 2)
    with writing(engine) as connection:
        assert find_version(connection, "mistral-moderation-latest").thresholds == {"moderation": 0.7}


def test_a_registered_model_is_pinned_and_told_of_too(engine: Engine) -> None:
    know(engine, MODERATION)
    with writing(engine) as connection:
        row = register(connection, "safety", "mistral-moderation-latest")
    assert (row.remote_model, row.recipe) == ("mistral-moderation-2603", {ASKED_AS: "mistral-moderation-latest"})
    know(engine, MOVED)
    (said,) = said_by(asked(engine, "safety"))
    assert said.startswith("mistral-moderation-latest means mistral-moderation-2609")
