"""Flower's configuration: closed off loopback, readable ids, looking only."""

from __future__ import annotations

import runpy
from types import SimpleNamespace
from typing import Any

import flower.options  # noqa: F401 - defines the options that the file reads
import pytest
from tornado.options import options

from labelmill_ops.flower import CONFIG


@pytest.fixture
def options_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    def at(address: str, basic_auth: list[str]) -> dict[str, Any]:
        mocked = options.mockable()
        monkeypatch.setattr(mocked, "address", address)
        monkeypatch.setattr(mocked, "basic_auth", basic_auth)
        return runpy.run_path(str(CONFIG))

    return at


@pytest.mark.parametrize("address", ["0.0.0.0", "10.1.2.3", "example.org", "::"])
def test_flower_does_not_open_to_others_without_a_password(options_at: Any, address: str) -> None:
    with pytest.raises(SystemExit, match="FLOWER_BASIC_AUTH"):
        options_at(address, [])
    assert options_at(address, ["operator:secret"])["address"] == address


def test_flower_listens_on_loopback_and_only_looks_unless_told_otherwise(options_at: Any) -> None:
    settings = options_at("", [])
    assert settings["address"] == "127.0.0.1"
    assert settings["read_only"] is True
    assert settings["max_tasks"] == 20_000


@pytest.mark.parametrize(
    ("kwargs", "shown"),
    [
        ("{'job_id': 'batch_01', 'v': 1, 'chunk': 7}", "batch_01 chunk 7"),
        ("{'job_id': 'train_01', 'v': 1}", "train_01"),
        ("{}", "{}"),
        ("{'job_id': 'cut sho...", "{'job_id': 'cut sho..."),
        (None, None),
    ],
)
def test_a_tasks_arguments_read_as_what_an_operator_looks_up(options_at: Any, kwargs: str, shown: str) -> None:
    task = options_at("", [])["format_task"](SimpleNamespace(kwargs=kwargs))
    assert task.kwargs == shown
