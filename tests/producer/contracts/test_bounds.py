"""What may enter, as rules; and through every edge of the producer, on both databases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from registered import add_dataset_and_model
from sqlalchemy import func, select
from sqlalchemy.engine import Engine

from labelmill.client import Client
from labelmill.contracts.bounds import (
    MAX_LABEL_CHARS,
    MAX_VERSION,
    RESULT_COLUMNS,
    fault_of_label,
    fault_of_name,
    fault_of_targets,
    fault_of_text,
    fault_of_value,
    version_of,
)
from labelmill.contracts.errors import InvalidInput, LabelmillError, NotFound
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, DatasetRow, EvaluationRow, TrainingRow
from labelmill.core.settings import Settings
from labelmill.services import models as registry

#: Texts of every kind that a database, a terminal or a file name might stumble over.
ODD_TEXTS = st.one_of(
    st.text(st.characters(), max_size=12),  # lone surrogates too
    st.sampled_from(
        [
            "",
            " ",
            "\x00",
            "a\x00b",
            "\ud800",
            "a\udc80",
            "\x1b[31m",
            "a\nb",
            "x" * 201,
            "x" * 10_001,
            "²",
            "99999999999999999999",
            "-1",
            "nan",
            "1e400",
            "*",
            "%",
            "\\",
            "'",
            '"',
            "\u2028",
            "\ufeff",
        ]
    ),
)
ODD_NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(),
    st.sampled_from([2**31, 2**63, -(2**63) - 1, 10**400, math.nan, math.inf, -math.inf, -0.5, 1.5]),
)


@pytest.mark.parametrize("text", ["\x00", "a\x00", "\ud800", "a\udfff", "x" * 10_001])
def test_what_no_database_keeps_is_no_text(text: str) -> None:
    assert fault_of_text(text)
    assert fault_of_value({"deep": [("in", text)]})
    assert fault_of_value({text: 1})


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=300))
def test_every_other_text_is_one(text: str) -> None:
    assert fault_of_text(text) is None
    text.encode()  # does not raise


@pytest.mark.parametrize("name", ["", " \t", "a\nb", "\x1b[2J", "x" * 201, "a\x00", "\x9b", "\udc80"])
def test_what_does_not_stand_on_a_line_is_no_name(name: str) -> None:
    assert fault_of_name(name)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        *(([name], "column of the results") for name in RESULT_COLUMNS),
        (["*"], "all targets"),
        (["x", "x_score"], "'x_score' is a column of the results of the target 'x'"),
        (["x_scores", "x"], "'x_scores' is a column"),
        (["x", "x"], "same name"),
        (["a\x00"], "NUL"),
        (["x" * 10_000], "10,000 characters"),
    ],
)
def test_targets_that_would_hide_other_columns_are_refused(names: list[str], words: str) -> None:
    fault = fault_of_targets(names)
    assert fault is not None
    assert words in fault
    assert len(fault) < 300


def test_ordinary_targets_are_not() -> None:
    assert fault_of_targets(["intent", "x_score", "labels", "row number", "emoción", "意图"]) is None


@pytest.mark.parametrize(("label", "is_one"), [("a" * MAX_LABEL_CHARS, True), ("a" * 1_001, False), ("a\x00b", False)])
def test_labels_have_their_bounds(label: str, is_one: bool) -> None:
    assert (fault_of_label(label) is None) == is_one


@given(st.one_of(st.integers().map(str), ODD_TEXTS))
@example("9" * 5_000)
@example(str(MAX_VERSION))
def test_a_version_is_a_number_that_a_version_can_have(written: str) -> None:
    number = version_of(written)
    assert number is None or (number == int(written) and 0 < number <= MAX_VERSION)


class Quiet:
    def send(self, *_: Any, **__: Any) -> None:
        pass


@pytest.fixture
def client(database_url: str, tmp_path: Path) -> Iterator[Client]:
    """A client with a dataset, a model and a file of texts."""
    with Client(Settings(database_url=database_url, data_dir=str(tmp_path / "data"))) as made:
        _fill(made, tmp_path)
        context = made.context
        made.context = replace(context, sender=Quiet())  # type: ignore[arg-type]
        yield made
        made.context = context


def _fill(made: Client, tmp_path: Path) -> None:
    with writing(made.context.engine) as connection:
        add_dataset_and_model(connection)
    (tmp_path / "texts.jsonl").write_text('{"id": "1", "text": "one", "intent": "a"}\n' * 3)


def _edges(source: str) -> dict[str, Callable[[Client, Any], Any]]:
    """Every way by which a string or a number of a caller's comes in."""

    def classify(**options: Any) -> Callable[[Client, Any], Any]:
        def act(client: Client, odd: Any) -> Any:
            given = {name: wrap(odd) if callable(wrap) else wrap for name, wrap in options.items()}
            return client.classify(**{"source": source, "model": "m"} | given)

        return act

    def prepare(**options: Any) -> Callable[[Client, Any], Any]:
        def act(client: Client, odd: Any) -> Any:
            given = {name: wrap(odd) if callable(wrap) else wrap for name, wrap in options.items()}
            return client.prepare(**{"name": "n", "source": source, "targets": ["intent=intent"]} | given)

        return act

    def train(**options: Any) -> Callable[[Client, Any], Any]:
        def act(client: Client, odd: Any) -> Any:
            given = {name: wrap(odd) if callable(wrap) else wrap for name, wrap in options.items()}
            return client.train(**{"name": "n", "dataset": "d"} | given)

        return act

    def changing(change: Callable[..., Any]) -> Callable[[Client, Any], Any]:
        def act(client: Client, odd: Any) -> Any:
            with writing(client.context.engine) as connection:
                return change(connection, odd)

        return act

    return {
        "classify source": classify(source=str),
        "classify model": classify(model=str),
        "classify ft": classify(model=lambda odd: f"ft:{odd}"),
        "classify version": classify(model=lambda odd: f"m@{odd}"),
        "classify text": classify(text=str),
        "classify id": classify(id_column=str),
        "classify key": classify(idempotency_key=str),
        "classify threshold": classify(thresholds=lambda odd: {"*": odd}),
        "classify threshold target": classify(thresholds=lambda odd: {str(odd): 0.5}, model="ft:x"),
        "classify multi": classify(multi=lambda odd: [str(odd)], model="ft:x"),
        "classify priority": classify(priority=str),
        "classify mode": classify(mode=str),
        "prepare name": prepare(name=str),
        "prepare source": prepare(source=str),
        "prepare hub": prepare(source=lambda odd: f"hf:{odd}"),
        "prepare text": prepare(text=str),
        "prepare target": prepare(targets=lambda odd: [f"{odd}=intent"]),
        "prepare column": prepare(targets=lambda odd: [f"intent={odd}"]),
        "prepare where": prepare(where=lambda odd: [f"intent={odd}"]),
        "prepare split": prepare(split=str),
        "prepare seed": prepare(seed=lambda odd: odd),
        "prepare min": prepare(min_per_label=lambda odd: odd),
        "train name": train(name=str),
        "train dataset": train(dataset=str),
        "train dataset version": train(dataset=lambda odd: f"d@{odd}"),
        "train method": train(method=str),
        "train model": train(base_model=str),
        "train cost": train(max_cost=lambda odd: odd if isinstance(odd, (int, float)) else None),
        "train steps": train(method="factory", steps=lambda odd: odd),
        "train rate": train(method="factory", learning_rate=lambda odd: odd),
        "train suffix": train(method="factory", suffix=str),
        "train wandb": train(method="factory", wandb_project=str),
        "train weight": train(method="factory", target_weights=lambda odd: {"intent": odd}),
        "train description": train(method="prompt", descriptions=lambda odd: {"a": str(odd)}),
        "train described": train(method="prompt", descriptions=lambda odd: {str(odd): "words"}),
        "train shots": train(method="prompt", shots=lambda odd: odd),
        "evaluate model": lambda client, odd: client.evaluate(str(odd), "d"),
        "evaluate dataset": lambda client, odd: client.evaluate("m", str(odd)),
        "evaluate split": lambda client, odd: client.evaluate("m", "d", str(odd)),
        "status": lambda client, odd: client.status(str(odd)),
        "status of a batch": lambda client, odd: client.status(f"batch_{odd}"),
        "results": lambda client, odd: list(client.results(f"batch_{odd}")),
        "cancel": lambda client, odd: client.cancel(f"train_{odd}"),
        "retry": lambda client, odd: client.retry(str(odd)),
        "approve": lambda client, odd: client.approve(f"train_{odd}"),
        "comparison": lambda client, odd: client.comparison([str(odd)]),
        "promote": changing(lambda connection, odd: registry.promote(connection, f"m@{odd}")),
        "rollback": changing(lambda connection, odd: registry.rollback(connection, str(odd))),
        "delete": changing(lambda connection, odd: registry.delete(connection, str(odd))),
        "alias": changing(lambda connection, odd: registry.set_alias(connection, "m@1", str(odd))),
        "unalias": changing(lambda connection, odd: registry.remove_alias(connection, str(odd))),
        "note": changing(lambda connection, odd: registry.set_note(connection, "m@1", str(odd))),
        "thresholds": changing(lambda connection, odd: registry.set_thresholds(connection, "m", [f"intent={odd}"])),
        "thresholds of": changing(lambda connection, odd: registry.set_thresholds(connection, "m", [f"{odd}=0.5"])),
        "register": changing(lambda connection, odd: registry.register(connection, str(odd), "ft:x")),
        "register id": changing(lambda connection, odd: registry.register(connection, "r", f"ft:{odd}")),
        "register multi": changing(
            lambda connection, odd: registry.register(connection, "r", f"ft:{abs(hash(odd))}", multi=[str(odd)])
        ),
        "lineage": changing(lambda connection, odd: registry.lineage(connection, str(odd))),
    }


#: Those of one command or area in one test: making a database for each takes longer than all that is said to it.
AREAS = ("classify", "prepare", "train", "evaluate", "")


@pytest.mark.parametrize("area", AREAS, ids=lambda area: area or "others")
def test_whatever_is_said_is_taken_or_refused_in_one_sentence(client: Client, tmp_path: Path, area: str) -> None:
    """No raw error of a database, no half-written job, no exit code but 2."""
    for edge, act in _edges(str(tmp_path / "texts.jsonl")).items():
        if (edge.partition(" ")[0] if edge.partition(" ")[0] in AREAS else "") == area:
            _say_odd_things(client, edge, act)


def _say_odd_things(client: Client, edge: str, act: Callable[[Client, Any], Any]) -> None:
    @given(st.one_of(ODD_TEXTS, ODD_NUMBERS))
    @example("x" * 10_000)
    @example("a\x00b")
    @example("a\ud800")
    @example("99999999999999999999")
    @example(math.nan)
    @example(math.inf)
    @example(2**63)
    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def say(odd: Any) -> None:
        before = _jobs(client.context.engine)
        refused: LabelmillError | None = None
        try:
            act(client, odd)
        except LabelmillError as error:
            refused = error
        if refused is not None:
            assert isinstance(refused, (InvalidInput, NotFound)), (edge, refused)
            assert refused.exit_code == 2
            assert refused.message.isprintable(), (edge, ascii(refused.message))
            assert len(refused.message) < 1_000, (edge, len(refused.message))
            assert _jobs(client.context.engine) == before, f"{edge}: something was written before it was refused"

    say()


def _jobs(engine: Engine) -> int:
    with reading(engine) as connection:
        tables = (BatchRow, DatasetRow, EvaluationRow, TrainingRow)
        return sum(connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables)
