"""What Mistral's list says of names, and of versions that ask them."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import Engine

from labelmill.core.database import reading, writing
from labelmill.core.database.tables import ModelRow
from labelmill.core.remote_models import (
    ASKED_AS,
    Listed,
    deprecation_of,
    keep_list,
    meaning_of,
    read_list,
    warnings_of,
)

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
