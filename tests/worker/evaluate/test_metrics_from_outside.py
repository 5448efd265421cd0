"""Every number of an evaluation, recomputed by scikit-learn from what `results` exported: one fault fails it all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import outside_metrics
import pytest
from aiohttp import web
from asked import submit_evaluation
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral, ok, refuse_texts_with
from workshop import Workshop

from labelmill.client import Client
from labelmill.contracts.errors import NotFound
from labelmill.core.database import writing
from labelmill.services.models import set_thresholds
from labelmill.services.results.reading import read_results
from labelmill.services.results.saving import OutputOptions, SaveRequest, save_results

INTENTS = ["(none)", "</script>", "a, b", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"]
SCHEMA = [
    {"name": "intent", "labels": INTENTS, "multi": False},
    {"name": "polarity", "labels": ["no", "yes"], "multi": False},
    {"name": "tags", "labels": ["", "[x]", "a/b", "__proto__", "\N{SNOWMAN}"], "multi": True},
]
ROWS = 300


def labelled(number: int) -> dict[str, Any]:
    """A row; some lack a target, some have labels that the model does not know."""
    rng = np.random.default_rng(number)
    labels: dict[str, Any] = {
        "intent": str(rng.choice([*INTENTS, "out of scope"], p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.1])),
        "polarity": str(rng.choice(["no", "yes"])),
        "tags": [str(tag) for tag in rng.choice(["", "[x]", "a/b", "\N{SNOWMAN}", "new"], rng.integers(1, 4), False)],
    }
    if number % 11 == 0:
        del labels["polarity"]
    return {"text": f"text {number} \N{CJK UNIFIED IDEOGRAPH-65E5}", "labels": labels}


def answer(texts: list[str], body: dict[str, Any]) -> web.Response:
    """Scores with many digits, often right, now and then 0 or 1."""
    results = []
    for text in texts:
        number = int(text.split()[1])
        truth, rng = labelled(number)["labels"], np.random.default_rng(number + 10_000)
        result: dict[str, Any] = {}
        for target in SCHEMA:
            names: list[str] = target["labels"]
            real = truth.get(target["name"], [])
            there = np.array([float(name in real if target["multi"] else name == real) for name in names])
            drawn = rng.random(len(names)) if target["multi"] else rng.dirichlet(np.full(len(names), 0.5))
            scores = drawn * 0.6 + there * 0.4 * rng.random()
            scores = np.round(scores) if number % 17 == 0 and target["multi"] else scores
            scores = scores if target["multi"] else scores / scores.sum()
            result[target["name"]] = {"scores": dict(zip(names, scores.tolist(), strict=True))}
        results.append(result)
    return ok(results)


@pytest.fixture
def shop(engine: Engine, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    with StrictMistral() as mistral:
        mistral.faults += [refuse_texts_with("text 33 "), answer]
        made = Workshop(engine, mistral, redis_url, tmp_path)
        rows = [labelled(number) for number in range(ROWS)]
        rows += rows[20:30]  # texts that are there twice
        made.dataset("shapes", SCHEMA, test=rows, validation=[labelled(number) for number in range(400, 500)])
        made.model("m", SCHEMA)
        with writing(engine) as connection:
            set_thresholds(connection, "m", ["intent=0.45", "tags=0.55", "tags.a/b=0.2"])
        yield made
        made.close()


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_every_metric_is_scikit_learns_of_the_exported_rows(
    shop: Workshop, database_url: str, tmp_path: Path, suffix: str
) -> None:
    job_id = submit_evaluation(shop.engine, shop.sender, model="m", dataset="shapes")
    document = shop.run(job_id)
    assert document["state"] == "completed", document
    output = tmp_path / f"exported{suffix}"
    client = Client(shop.resources.settings.model_copy(update={"database_url": database_url}))
    save_results(client.context, SaveRequest(job_id, output))
    client.close()
    rows = [json.loads(line) for line in shop.split_file("shapes", "test").read_text().splitlines()]
    gaps = outside_metrics.check(json.loads(json.dumps(document)), outside_metrics.read_exported(output), rows)
    assert {name: gap for name, gap in gaps.items() if gap > 1e-9} == {}
    assert len(gaps) > 300
    found = document["metrics"]
    assert (found["intent"]["failed"], found["intent"]["rows"], found["polarity"]["rows"]) == (1, 310, 281)
    assert found["intent"]["abstained"] > 10
    assert found["intent"]["unknown_labels"]["out of scope"] > 10


def test_an_answer_that_is_missing_is_no_label_of_that_name(shop: Workshop) -> None:
    found = shop.run(submit_evaluation(shop.engine, shop.sender, model="m", dataset="shapes"))["metrics"]["intent"]
    answers = {name: sum(row.get(name, 0) for row in found["confusion"].values()) for name in ("(none)", "((none))")}
    assert answers["((none))"] == found["unanswered"]
    assert answers["(none)"] > 10


def test_rows_of_an_evaluation_are_those_of_its_batch(shop: Workshop) -> None:
    job_id = submit_evaluation(shop.engine, shop.sender, model="m", dataset="shapes")
    assert list(read_results(shop.engine, job_id)) == []  # not begun
    document = shop.run(job_id)
    assert list(read_results(shop.engine, job_id)) == list(read_results(shop.engine, document["batch"]))
    with pytest.raises(NotFound, match="no job has the id 'eval_nothing'"):
        list(read_results(shop.engine, "eval_nothing"))


def test_what_is_true_is_written_beside_the_answers_of_chats(shop: Workshop, database_url: str, tmp_path: Path) -> None:
    shop.mistral.faults[:] = [
        lambda texts, body: ok([{"polarity": {"scores": {"no": 0.3, "yes": 0.7}}} for _ in texts])
    ]
    rows = [{"messages": [{"role": "user", "content": f"chat {n}"}], "labels": {"polarity": "yes"}} for n in range(3)]
    shop.dataset("chats", SCHEMA[1:2], test=rows)
    shop.model("chatty", SCHEMA[1:2])
    job_id = submit_evaluation(shop.engine, shop.sender, model="chatty", dataset="chats")
    assert shop.run(job_id)["state"] == "completed"
    client = Client(shop.resources.settings.model_copy(update={"database_url": database_url}))
    save_results(client.context, SaveRequest(job_id, tmp_path / "chats.jsonl", OutputOptions(keep=["labels"])))
    client.close()
    kept = [json.loads(line)["keep"] for line in (tmp_path / "chats.jsonl").read_text().splitlines()]
    assert kept == [{"labels": {"polarity": "yes"}}] * 3
