"""An argument of a wrong type, or a column that a source has not, is an InvalidInput that names its parameter."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmill import Client, InvalidInput
from labelmill.calls import Calls
from labelmill.client import Submitting
from labelmill.contracts.argument_types import check_arguments
from labelmill.registry_calls import RegistryCalls

TARGETS = ["intent=intent"]
MODEL = "ft:classifier:x"
WRONG: list[tuple[str, Callable[[Any], Any]]] = [
    ("split", lambda c: c.prepare("d", [{}], targets=TARGETS, split=(80, 10, 10))),
    ("targets", lambda c: c.prepare("d", [{}], targets="intent=intent")),
    ("targets", lambda c: c.prepare("d", [{}], targets=[5])),
    ("name", lambda c: c.prepare(5, [{}], targets=TARGETS)),
    ("idempotency_key", lambda c: c.classify(["a"], MODEL, idempotency_key=5)),
    ("metadata", lambda c: c.classify(["a"], MODEL, metadata=["a=1"])),
    ("metadata", lambda c: c.train("m", "d", metadata={"a": 1})),
    ("max_cost", lambda c: c.classify(["a"], MODEL, max_cost="1")),
    ("max_cost", lambda c: c.train("m", "d", max_cost=True)),
    ("max_cost", lambda c: c.retry("batch_1", max_cost="1")),
    ("thresholds", lambda c: c.classify(["a"], MODEL, thresholds=0.5)),
    ("deadline", lambda c: c.classify(["a"], MODEL, mode="auto", deadline=90)),
    ("models", lambda c: c.compare("m@1", "d")),
    ("limit", lambda c: c.jobs(limit="5")),
    ("limit", lambda c: c.jobs(limit=5.5)),
    ("limit", lambda c: c.jobs(limit=10**30)),
    ("limit", lambda c: c.datasets(limit=0)),
    ("limit", lambda c: c.datasets(limit=10**30)),
    ("jobs", lambda c: c.wait("batch_1")),
    ("jobs", lambda c: c.wait([None])),
    ("job", lambda c: next(c.watch(5))),
    ("job_id", lambda c: c.status(None)),
    ("scores", lambda c: c.job("batch_1").pandas(scores=5)),
    ("batch_rows", lambda c: c.job("batch_1").arrow("10")),
    ("evaluations", lambda c: c.comparison([])),
    ("models", lambda c: c.compare([], "d")),
    ("scores", lambda c: c.results("batch_1", scores=5)),
    ("ref", lambda c: c.promote(5)),
    ("since", lambda c: c.spend(since=5)),
    # columns and rows
    ("id_column", lambda c: c.classify([{"text": "a"}], MODEL, id_column="ticket")),
    ("text", lambda c: c.classify("texts.jsonl", MODEL, text="body")),
    ("id_column", lambda c: c.classify("texts.jsonl", MODEL, id_column="ticket")),
    ("targets", lambda c: c.prepare("d", "texts.jsonl", targets=["x=y"])),
    ("where", lambda c: c.prepare("d", [{"text": "a", "intent": "b"}], targets=TARGETS, where=["lang=en"])),
    ("source", lambda c: c.classify([], MODEL)),
    ("source", lambda c: c.classify("", MODEL)),
    ("source", lambda c: c.classify(".", MODEL)),
    ("source", lambda c: c.classify("nothing.jsonl", MODEL)),
    ("source", lambda c: c.classify("empty.jsonl", MODEL)),
    ("source", lambda c: c.prepare("d", "empty.jsonl", targets=TARGETS)),
]


@pytest.fixture
def client(tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.chdir(tmp_path)
    Path("texts.jsonl").write_text('{"text": "a", "intent": "b"}\n')
    Path("empty.jsonl").touch()
    shutil.copy(sqlite_template, "jobs.db")
    with Client(database_url="sqlite:///jobs.db", broker_url="redis://127.0.0.1:1/0", data_dir="data") as made:
        yield made


@pytest.mark.parametrize(("field", "call"), WRONG)
def test_a_wrong_argument_is_named(client: Client, field: str, call: Callable[[Any], Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        call(client)
    assert refused.value.field == field
    assert client.jobs() == []


def test_every_call_with_arguments_checks_them() -> None:
    for kind in (Calls, RegistryCalls, Submitting):
        for name, call in vars(kind).items():
            if inspect.isfunction(call) and call.__code__.co_argcount > 1 and not name.startswith("__"):
                # the first two are `_waiting` and `_watching`, the last is handed what a service returned
                checks = f"check_arguments({kind.__name__}.{name}, locals())" in inspect.getsource(call)
                assert checks or name in ("wait", "watch", "_start"), name


def _call(number: float, places: int, texts: list[str] | None = None, other: Path | None = None) -> None: ...


def test_numbers_of_numpy_and_unknown_types_pass() -> None:
    _call.__annotations__["texts"] = "Sequence[str] | None"
    check_arguments(_call, {"number": np.float32(1), "places": np.int64(2), "texts": ("a",), "other": object()})
    with pytest.raises(InvalidInput, match="texts must be a list of texts, not 'ab'"):
        check_arguments(_call, {"texts": "ab"})


@pytest.mark.parametrize("amount", [Decimal("0.5"), np.float32(0.5)], ids=["decimal", "numpy"])
def test_an_amount_may_be_a_number_of_another_library(client: Client, amount: Any) -> None:
    batch = client.classify(["a"], "mistral-moderation-2603", max_cost=amount, idempotency_key="k")
    assert client.classify(["a"], "mistral-moderation-2603", max_cost=0.5, idempotency_key="k").id == batch.id
    assert batch.status()["max_cost"] == 0.5


@pytest.mark.parametrize(("split", "warns"), [("50/60/10", True), ("80/10/10", False), ("8/1/1", False)])
def test_parts_that_are_nearly_percent_are_told_as_they_are_taken(client: Client, split: str, *, warns: bool) -> None:
    warnings = client.prepare("d", "texts.jsonl", targets=TARGETS, split=split).warnings
    told = [warning for warning in warnings if "not to 100" in warning]
    assert told == (["the parts of split sum to 120, not to 100: they are taken as 42%/50%/8%"] if warns else [])
