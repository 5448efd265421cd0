"""A version keeps the model that its name meant when it was made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from emulator_thread import EmulatorThread
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import RemoteUnavailable
from labelmill.core.database import reading
from labelmill.core.remote_models import ASKED_AS, read_list
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_worker.mistral.control_plane import SdkControlPlane
from labelmill_worker.mistral.sdk_requests import SdkRequests
from labelmill_worker.ports.control_plane import ControlPlane
from labelmill_worker.train.pinning import pinned
from labelmill_worker.train.step_context import StepContext


def step_of(engine: Engine, plane: ControlPlane, base_model: str) -> StepContext:
    return cast("StepContext", SimpleNamespace(engine=engine, plane=plane, spec=SimpleNamespace(base_model=base_model)))


class Away:
    """A Mistral that cannot be reached."""

    def list_models(self) -> None:
        raise RemoteUnavailable("no connection")


def test_names_are_pinned_by_mistrals_list_which_is_kept(engine: Engine) -> None:
    config = EmulatorConfig(port=0, deprecated={"ministral-8b-2512": "ministral-8b-2709"})
    with EmulatorThread(config) as emulator:
        plane = SdkControlPlane(SdkRequests("any", emulator.url))
        assert pinned(step_of(engine, plane, "mistral-small-latest"), {}) == (
            "mistral-small-2603",
            {ASKED_AS: "mistral-small-latest"},
        )
        plane.close()
    away = cast("ControlPlane", Away())  # what was kept is enough
    remote, recipe = pinned(step_of(engine, away, "ministral-8b-2512"), {"embedding_model": "mistral-embed"})
    assert (remote, recipe) == ("ministral-8b-2512", {"embedding_model": "mistral-embed-2312"})
    with reading(engine) as connection:
        listed = {model.id: model for model in read_list(connection)}
    assert listed["ministral-8b-2512"].replacement == "ministral-8b-2709"
    assert (listed["ministral-8b-2512"].deprecated_at or "").startswith("2027-01-31")
    assert listed["mistral-small-2603"].deprecated_at is None


@pytest.mark.parametrize("name", ["mistral-embed", "mistral-small-latest"])
def test_where_no_list_was_ever_read_a_name_stays_as_it_is(engine: Engine, name: str) -> None:
    assert pinned(step_of(engine, cast("ControlPlane", Away()), name), {}) == (name, {})
