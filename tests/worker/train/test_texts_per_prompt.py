"""`--texts-per-prompt auto`: which numbers are tried, which one is taken, what it costs; and certified prompts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from aiohttp import web
from asked import approve, retry
from mistral_answers import completed, label_of, prompted_texts, refuse_texts_with
from school import SCHEMA, School, open_school, parts_of_page
from sqlalchemy import select, update
from sqlalchemy.engine import Engine
from strict_mistral import LABELS, StrictMistral
from token_model import choice_of

from labelmill.cli.summaries import summary_of
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.exit_codes import exit_code_of_job
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, TrainingRow
from labelmill.core.paired_loss import largest_loss
from labelmill.core.remote_models import Listed, keep_list
from labelmill.report.parts import Grid
from labelmill.services.context import ServiceContext
from labelmill.services.jobs.listing import JobsRequest, list_jobs
from labelmill.services.models import resolve_model
from labelmill_worker.train import texts_per_prompt
from labelmill_worker.train.texts_per_prompt import Trial, choose, nothing_to_try, numbers_to_try, rows_needed

ROWS = 2_000


def trial(texts: int, *, only_one: int = 0, only_this: int = 0, rows: int = ROWS) -> Trial:
    """Right but in the first fifth, as one text a prompt is; but for `only_one` rows, and `only_this`."""
    right = np.arange(rows) >= rows // 5
    right[rows - only_one :] = False
    right[:only_this] = True
    return Trial(texts, {"intent": right}, rows // texts, 100 * rows // texts)


def test_numbers_are_doubled_as_long_as_answers_and_rows_allow() -> None:
    assert numbers_to_try(ROWS, 64) == [2, 4, 8, 16, 32, 64]
    assert numbers_to_try(ROWS, 9) == [2, 4, 8]
    assert numbers_to_try(ROWS, 1) == []


def test_so_few_rows_that_nothing_can_be_shown_cost_nothing() -> None:
    assert numbers_to_try(rows_needed(6) - 1, 64) == []
    assert numbers_to_try(rows_needed(6), 64) == [2, 4, 8, 16, 32, 64]
    choice = nothing_to_try(300, 64)
    assert (choice.texts, choice.tried) == (1, [])
    assert "it takes 568 different texts in validation" in choice.said
    assert "there are 300" in choice.said


def test_the_largest_number_that_surely_costs_no_more_than_a_point_is_taken() -> None:
    trials = [trial(1), trial(2), trial(4, only_one=2), trial(8, only_one=40, only_this=40), trial(16, only_one=90)]
    choice = choose(trials, planned=4)
    assert choice.texts == 4
    assert [one.get("holds") for one in choice.tried] == [None, True, True, False, False]
    assert choice.tried[2]["loss_at_most"] == {"intent": pytest.approx(largest_loss(2, 0, ROWS, 0.05 / 4), abs=1e-6)}
    assert choice.tried[0]["accuracy"] == {"intent": 0.8}
    assert "4 texts a prompt" in choice.said
    assert "75% fewer tokens" in choice.said


def test_a_bound_is_corrected_for_all_numbers_that_were_meant_to_be_tried() -> None:
    alone = next(n for n in range(1, 50) if largest_loss(n, 0, ROWS, 0.05 / 6) > 0.01) - 1
    assert choose([trial(1), trial(2, only_one=alone)], planned=6).texts == 2
    assert choose([trial(1), trial(2, only_one=alone + 1)], planned=6).texts == 1
    assert choose([trial(1), trial(2, only_one=alone + 1)], planned=1).texts == 2


def test_a_number_has_to_hold_for_every_target() -> None:
    one, other = trial(1), trial(2)
    bad = trial(2, only_one=100)
    trials = [
        Trial(1, {"a": one.right["intent"], "b": one.right["intent"]}, 1, 1),
        Trial(2, {"a": other.right["intent"], "b": bad.right["intent"]}, 1, 1),
    ]
    assert choose(trials, planned=1).texts == 1


@pytest.fixture
def school(
    engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[School]:
    monkeypatch.setattr(texts_per_prompt, "LOSS", 0.1)  # so that few rows suffice
    made = open_school(engine, mistral, redis_url, tmp_path)
    texts = [f"text {number} {'x' * (number % 4)}" for number in range(90)]
    rows = [{"text": text, "labels": {"intent": label_of(text)}} for text in texts]
    made.dataset("topics", SCHEMA[:1], train=rows[:20], validation=[*rows, *rows[:10]])
    yield made
    made.close()


def errs_above(texts_at_once: int) -> Any:
    """A model that reads no more than so many texts of a prompt."""

    def reply(texts: list[str], body: dict[str, Any]) -> web.Response | None:
        if len(texts) <= texts_at_once:
            return None
        given = [{"number": number, "intent": label_of(text)} for number, text in enumerate(texts, 1)]
        for answer in given[texts_at_once:]:
            answer["intent"] = next(label for label in LABELS if label != answer["intent"])
        return completed(body, orjson.dumps({"answers": given}).decode())

    return reply


def test_auto_tries_numbers_on_validation_and_the_version_keeps_the_one_that_holds(school: School) -> None:
    school.mistral.faults.append(errs_above(4))
    training_id = school.train(method="prompt", dataset="topics", texts_per_prompt="auto")
    phases = list[str]()
    while (training := school.status(training_id))["state"] != "succeeded":
        if (phase := training["progress"]["phase"]) not in phases[-1:]:
            phases.append(phase)
        school.step()
    found = training["details"]["texts_per_prompt"]
    assert (training["state"], found["chosen"], found["rows"]) == ("succeeded", 4, 90)
    assert [one["texts"] for one in found["tried"]] == [1, 2, 4, 8, 16, 32, 64]
    assert [one["requests"] for one in found["tried"]] == [90, 45, 23, 12, 6, 3, 2]
    assert found["said"] in school.history(training["id"])
    assert training["cost"]["tokens"] == 55 * (1 + 90 + 45 + 23 + 12 + 6 + 3 + 2)
    assert training["cost"]["amount"] <= training["estimate"]["amount"]
    tried = ["log-probabilities", *(f"{number} texts a prompt" for number in (1, 2, 4, 8, 16, 32, 64))]
    assert [phase for phase in phases if phase.startswith("trying ")] == [f"trying {name}" for name in tried]
    assert set(phases) - {f"trying {name}" for name in tried} == {"queued"}
    assert ("prompt", found["said"]) in summary_of(training).facts
    (table,) = [
        part for part in parts_of_page(school, training_id) if isinstance(part, Grid) and "texts" in part.headings
    ]
    assert [row[0] for row in table.rows] == [1, 2, 4, 8, 16, 32, 64]
    batch = school.run(school.classify([f"new {number} {'x' * (number % 4)}" for number in range(10)]))
    assert batch["requests"] == 3
    jobs = list_jobs(ServiceContext(school.engine, school.sender), JobsRequest(limit=100))
    assert {job["id"] for job in jobs} >= {training["id"], batch["id"]}
    with reading(school.engine) as connection:
        inner = set(connection.scalars(select(BatchRow.id).where(BatchRow.owner_id == training["id"])))
    assert len(inner) == 8
    assert inner.isdisjoint(job["id"] for job in jobs)


def test_a_training_that_stops_at_its_cap_in_its_trials_goes_on_with_what_was_answered(school: School) -> None:
    asked = {"method": "prompt", "dataset": "topics", "texts_per_prompt": "auto"}
    whole = school.run(school.train(**asked))
    school.mistral.billed.clear()
    training_id = school.train(**asked, yes=False, max_cost=1.0)
    while school.status(training_id)["state"] != "running":
        school.step()
    cap = 0.9 * whole["cost"]["amount"]  # as if the estimate had been too low
    with writing(school.engine) as connection:
        connection.execute(update(TrainingRow).where(TrainingRow.id == training_id).values(max_cost=cap))
    stopped = school.run(training_id)
    assert (stopped["state"], stopped["error_code"], exit_code_of_job(stopped)) == ("failed", "cap_reached", 4)
    assert 0 < stopped["cost"]["amount"] <= cap
    assert list(stopped["details"]["batches"])[:2] == ["1 texts a prompt", "2 texts a prompt"]
    assert 90 < sum(school.mistral.billed.values()) < 7 * 90, "it stopped in one of the later trials"
    retry(school.engine, school.sender, training_id)
    again = school.run(training_id)
    assert (again["error_code"], again["cost"]["amount"] <= cap) == ("cap_reached", True)
    retry(school.engine, school.sender, training_id, 1.0)
    ended = school.run(training_id)
    assert (ended["state"], ended["max_cost"], ended["error"]) == ("succeeded", 1.0, None)
    assert set(school.mistral.billed.values()) == {7}, "no answer is asked for twice"
    assert ended["details"] == whole["details"]


def test_trials_ask_the_model_that_the_trainings_name_means(school: School) -> None:
    name, dated = "ministral-8b-latest", "ministral-8b-2512"
    with writing(school.engine) as connection:
        keep_list(connection, [Listed(dated, (name,)), Listed(name, (dated,))])
    asked = set()

    def note(texts: list[str], body: dict[str, Any]) -> None:
        asked.add(body["model"])

    school.mistral.faults.append(note)
    school.run(school.train(method="prompt", dataset="topics", texts_per_prompt="auto", base_model=name))
    assert asked == {dated}


def test_trials_wait_for_a_persons_word_and_few_rows_need_none(school: School) -> None:
    waiting = school.train(method="prompt", dataset="topics", texts_per_prompt="auto", yes=False, max_cost=0.0001)
    document = school.run(waiting)
    assert (document["state"], school.mistral.requests) == ("awaiting_approval", 0)
    assert document["estimate"]["amount"] > 0.0001
    approve(school.engine, school.sender, waiting)
    assert school.run(waiting)["details"]["texts_per_prompt"]["chosen"] == 64
    school.mistral.requests = 0
    few = school.run(school.train(method="prompt", texts_per_prompt="auto", yes=False))
    assert (few["state"], few["details"]["texts_per_prompt"]["chosen"], school.mistral.requests) == ("succeeded", 1, 0)
    with reading(school.engine) as connection:
        assert "numbered" not in (resolve_model(connection, "m@2").recipe or {})


def tells_half(texts: list[str], body: dict[str, Any]) -> web.Response | None:
    """A server that tells log-probabilities; every second text is answered wrongly, and it is unsure there."""
    properties = body.get("response_format", {}).get("json_schema", {}).get("schema", {}).get("properties", {})
    if "messages" not in body:
        return None
    document: dict[str, Any] = orjson.loads(completed(body).body)  # type: ignore[arg-type] # bytes, as it was made
    if "intent" not in properties:
        content = document["choices"][0]["message"]["content"]
        document["choices"][0] = choice_of([(content, None)])
    else:
        (text,) = prompted_texts(body)
        is_odd = int(text.split()[1]) % 2
        label = next(one for one in LABELS if (one != label_of(text)) == is_odd)
        sure = 0.6 if is_odd else 0.9
        shares = {one: sure if one == label else (1 - sure) / 3 for one in LABELS}
        document["choices"] = [choice_of([('{"intent":', None), ("", shares), ("}", None)])]
    return web.Response(body=orjson.dumps(document), content_type="application/json")


def test_a_precision_of_a_prompt_is_certified_on_validation(school: School) -> None:
    school.mistral.faults.append(tells_half)
    asked = {"*": 0.9}
    training = school.run(school.train(method="prompt", dataset="topics", target_precision=asked))
    (precision,) = training["details"]["targets"]["intent"]["precisions"]
    assert (precision["tested"], precision["answers"], precision["right"]) == (90, 45, 45)
    batch = school.run(school.classify([f"new {number} xx" for number in range(10)]))
    assert (batch["rows"]["abstained"], batch["rows"]["labelled"]) == (5, 5)
    assert training["details"]["left_out"] == {"rows": 0, "reason": None}


def test_a_precision_is_certified_without_the_rows_that_were_not_answered(school: School) -> None:
    school.mistral.faults += [refuse_texts_with("text 7 ", 400), tells_half]
    training = school.run(school.train(method="prompt", dataset="topics", target_precision={"*": 0.9}))
    (precision,) = training["details"]["targets"]["intent"]["precisions"]
    assert (precision["tested"], training["details"]["left_out"]["rows"]) == (89, 1)
    assert training["details"]["left_out"]["reason"]


def test_a_precision_is_refused_where_a_prompt_scores_one_and_zero(school: School) -> None:
    failed = school.run(school.train(method="prompt", dataset="topics", target_precision={"intent": 0.9}))
    assert (failed["state"], failed["error_code"]) == ("failed", "invalid_input")
    assert "tells no log-probabilities" in failed["error"]
    assert school.mistral.requests == 1
    with pytest.raises(InvalidInput, match="multi-label target 'tags'") as refused:
        school.train(method="prompt", target_precision={"*": 0.9})
    assert refused.value.field == "target_precision"
