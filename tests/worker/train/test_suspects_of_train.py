"""Wrong labels in the train split are found by fits that had not seen their rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asked import gather_report, submit_evaluation, submit_training
from memory_mistral import MemoryMistral
from sqlalchemy.engine import Engine
from strict_mistral import LABELS, StrictMistral, label_of, refuse_texts_with
from workshop import SCHEMA, PollingWorkshop, Workshop

from labelmill.cli.summaries import summary_of
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.core.storage.local import LocalStorage
from labelmill.report.parts import Grid, Note
from labelmill.report.suspects import write_suspects
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.requests import JobRequest
from labelmill_worker.train.heads import fit as fitting
from labelmill_worker.train.heads.fit import fit_head
from labelmill_worker.train.heads.vector_rows import VectorRows, write_vector_rows

ONE = Target("topic", tuple("abcdefgh"))
SEVERAL = Target("tags", tuple("uvwxyz"), multi=True)
FLIPPED = 0.1


def with_wrong_labels(folder: Path, count: int, seed: int) -> tuple[VectorRows, set[int], set[int]]:
    """Rows whose labels can be read from their vectors, but for those that were changed afterwards."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(8, 32))
    topics = rng.integers(0, 8, count)
    vectors = (centres[topics] * 1.2 + rng.normal(size=(count, 32))).astype(np.float16)
    holds = vectors.astype(float) @ rng.normal(size=(32, 6)) > 6
    wrong = rng.random(count) < FLIPPED
    given = np.where(wrong, (topics + rng.integers(1, 8, count)) % 8, topics)
    wrong_tags = rng.random(count) < FLIPPED
    holds[wrong_tags, rng.integers(0, 6, int(wrong_tags.sum()))] ^= True
    rows = [
        (
            vectors[row].tobytes(),
            {
                "topic": ONE.labels[given[row]],
                "tags": [tag for tag, held in zip(SEVERAL.labels, holds[row], strict=True) if held],
            },
        )
        for row in range(count)
    ]
    schema = LabelSchema((ONE, SEVERAL))
    found = write_vector_rows(folder / f"{seed}", schema, rows)
    return found, set(np.flatnonzero(wrong).tolist()), set(np.flatnonzero(wrong_tags).tolist())


@pytest.mark.parametrize("in_memory", [True, False])
def test_most_wrong_labels_of_train_are_found_and_few_right_ones(
    tmp_path: Path, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_memory:  # what more rows than fit into memory get: the fits that chose the regularisation
        monkeypatch.setattr(fitting, "IN_MEMORY_ROWS", 1_000)
    monkeypatch.setattr(fitting, "_CV_ROWS", 900)
    rows, wrong, wrong_tags = with_wrong_labels(tmp_path, 2_400, seed=3)
    found = fit_head(rows, None, LabelSchema((ONE, SEVERAL))).suspects
    for target, truth, recall in (("topic", wrong, 0.6), ("tags", wrong_tags, 0.4)):
        named = [case[0] for case in found[target]["all_suspects"]]
        assert len(truth & set(named)) / len(truth) > recall, target
        assert sum(row in truth for row in named[:50]) / 50 > 0.85, target
        assert found[target]["suspected"] == len(set(named))
        assert found[target]["rows"] == 2_400
    assert found["topic"]["fitted_rows"] == (1_600 if in_memory else 600)


def test_rows_are_named_by_their_numbers_in_the_split(tmp_path: Path) -> None:
    rows, wrong, _ = with_wrong_labels(tmp_path, 600, seed=4)
    numbers = np.arange(600) * 3 + 1
    found = fit_head(rows, None, LabelSchema((ONE, SEVERAL)), numbers=numbers).suspects["topic"]
    named = [case[0] for case in found["all_suspects"][:30]]
    assert {number % 3 for number in named} == {1}
    assert sum((number - 1) // 3 in wrong for number in named) > 25


def labelled(number: int) -> dict[str, Any]:
    """Every tenth row has another label than its text says."""
    text = f"=text {number} {'x' * (number % 4)}"
    label = label_of(text)
    if number % 10 == 3:
        label = next(other for other in sorted(LABELS) if other != label)
    return {"text": text, "labels": {"intent": label}}


@pytest.fixture
def shop(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    made = PollingWorkshop(engine, mistral, redis_url, tmp_path, MemoryMistral())
    made.dataset(
        "small",
        SCHEMA,
        train=[labelled(number) for number in range(200)],
        validation=[labelled(number) for number in range(1000, 1040)],
    )
    yield made
    made.close()


def test_a_training_lists_the_rows_and_exports_all_of_them(shop: Workshop, mistral: StrictMistral) -> None:
    mistral.faults.append(refuse_texts_with("=text 0 "))  # a row without a vector must not shift the numbers
    training = shop.run(submit_training(shop.engine, shop.sender, name="m", dataset="small", yes=True))
    assert training["state"] == "succeeded", training
    expected = {number for number in range(200) if number % 10 == 3}
    assert training["details"]["targets"]["intent"]["suspects"]["suspected"] >= 0.9 * len(expected)
    page = gather_report(shop.engine, training["id"])
    (shown,) = (part for part in page.parts if isinstance(part, Grid) and "probably wrong" in part.caption)
    assert {row[0] for row in shown.rows} <= expected
    assert all(row[4].startswith(f"=text {row[0]} ") for row in shown.rows)
    context = ServiceContext(shop.engine, shop.sender, LocalStorage(shop.folder))
    for name in ("all.csv", "all.jsonl"):
        written = write_suspects(context, JobRequest(training["id"]), shop.folder / name)
        assert written.rows == training["details"]["targets"]["intent"]["suspects"]["suspected"]
    lines = [json.loads(line) for line in (shop.folder / "all.jsonl").read_text().splitlines()]
    assert {line["row"] for line in lines} <= expected
    assert len(lines) >= 0.9 * len(expected)
    assert all(line["predicted"] == label_of(line["text"]) != line["label"] for line in lines)
    with (shop.folder / "all.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert [int(one["row"]) for one in cells] == [line["row"] for line in lines]
    assert all(one["text"].startswith("'=text") for one in cells)  # harmless in a spreadsheet


def test_a_page_about_rows_of_training_says_nothing_about_others(shop: Workshop) -> None:
    training = shop.run(submit_training(shop.engine, shop.sender, name="m", dataset="small", yes=True))
    done = shop.run(submit_evaluation(shop.engine, shop.sender, model="m", dataset="small", split="train"))
    page = gather_report(shop.engine, done["id"])
    said = " ".join(part.text for part in page.parts if isinstance(part, Note))
    assert "on other rows like these" not in said
    assert "nothing about other rows" in said
    assert training["id"] in said
    (metrics,) = (part for part in page.parts if isinstance(part, Grid) and part.caption == "Metrics")
    assert {row[2] for row in metrics.rows} == {None}
    (careful,) = (value for name, value in summary_of(done).facts if name == "careful")
    assert "nothing about other rows" in careful
    assert "[" not in dict(summary_of(done).facts)["intent"]
    other = shop.run(submit_evaluation(shop.engine, shop.sender, model="m", dataset="small", split="validation"))
    assert "careful" not in dict(summary_of(other).facts)


def test_what_knows_of_no_suspects_says_so(shop: Workshop) -> None:
    shop.run(submit_training(shop.engine, shop.sender, name="p", dataset="small", method="prompt", yes=True))
    prompt = shop.run(submit_training(shop.engine, shop.sender, name="p", dataset="small", method="prompt", yes=True))
    context, request = ServiceContext(shop.engine, shop.sender, LocalStorage(shop.folder)), JobRequest(prompt["id"])
    with pytest.raises(InvalidInput, match="knows of no suspects"):
        write_suspects(context, request, shop.folder / "none.csv")
    with pytest.raises(InvalidInput, match=r"written as \.csv or \.jsonl"):
        write_suspects(context, request, shop.folder / "none.txt")
    assert not (shop.folder / "none.csv").exists()
