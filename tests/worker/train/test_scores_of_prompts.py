"""Prompted models whose server tells log-probabilities: it is asked once, and scores follow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from aiohttp import web
from asked import submit_evaluation
from mistral_answers import completed, label_of, prompted_texts
from school import SCHEMA, School, made_up_row, open_school
from sqlalchemy.engine import Engine
from strict_mistral import LABELS, StrictMistral
from token_model import choice_of

from labelmill.core.database import writing
from labelmill.core.remote_models import Listed, keep_list
from labelmill.services.results.reading import read_results


@pytest.fixture
def school(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Any) -> Iterator[School]:
    made = open_school(engine, mistral, redis_url, tmp_path)
    yield made
    made.close()


def _sure(text: str) -> float:
    """The probability of a text's label: by its number, above a half."""
    return 0.55 + 0.4 * (int(text.split()[1]) % 10) / 9


def tells(texts: list[str], body: dict[str, Any]) -> web.Response | None:
    """A server that tells log-probabilities where they are asked for."""
    if "messages" not in body or not body.get("logprobs"):
        return None
    properties = body["response_format"]["json_schema"]["schema"]["properties"]
    if "intent" not in properties:
        document: dict[str, Any] = orjson.loads(completed(body).body)  # type: ignore[arg-type] # bytes, as it was made
        content = document["choices"][0]["message"]["content"]
        document["choices"][0] = choice_of([(content, None)], body["top_logprobs"])
        return web.Response(body=orjson.dumps(document), content_type="application/json")
    (text,) = prompted_texts(body)
    rest = (1 - _sure(text)) / 3
    shares = {label: _sure(text) if label == label_of(text) else rest for label in LABELS}
    parts = [('{"intent":', None), ("", shares), (',"tags":["odd"]}', None)]
    document = orjson.loads(completed(body, "").body)  # type: ignore[arg-type] # bytes, as it was made
    document["choices"] = [choice_of(parts, body["top_logprobs"], 100)]
    return web.Response(body=orjson.dumps(document), content_type="application/json")


def refuses(texts: list[str], body: dict[str, Any]) -> web.Response | None:
    """A server that knows no log-probabilities."""
    if "logprobs" not in body:
        return None
    return web.Response(
        status=422, body=b'{"detail":[{"type":"extra_forbidden","loc":["body","logprobs"],"msg":"no"}]}'
    )


def _scores(school: School, batch: str) -> list[float]:
    return [row["predictions"]["intent"]["score"] for row in read_results(school.engine, batch)]


def test_scores_are_the_probabilities_of_labels_and_a_threshold_makes_rows_abstain(school: School) -> None:
    school.mistral.faults.append(tells)
    training = school.run(school.train(method="prompt"))
    assert "scores are probabilities" in school.history(training["id"])
    texts = [made_up_row(n)["text"] for n in range(2000, 2030)]
    batch = school.run(school.classify(texts, thresholds={"intent": 0.75}))
    assert _scores(school, batch["id"]) == pytest.approx([_sure(text) for text in texts], abs=1e-5)
    assert batch["rows"]["abstained"] == sum(_sure(text) < 0.75 for text in texts)
    (first, *_) = read_results(school.engine, batch["id"])
    assert math.fsum(first["predictions"]["intent"]["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert first["predictions"]["tags"]["scores"] == {"alpha": 0.0, "even": 0.0, "odd": 1.0}


def test_a_model_is_asked_once_whatever_it_says(school: School) -> None:
    for said, bodies in ((refuses, 1), (tells, 1)):
        school.mistral.faults = [said]
        school.run(school.train(method="prompt", base_model=f"model-{said.__name__}"))
        school.run(school.train(method="prompt", base_model=f"model-{said.__name__}"))
        assert sum("logprobs" in body for body in school.mistral.bodies) == bodies
        school.mistral.bodies.clear()
    batch = school.run(school.classify(["text 7 xx"], model="m@2"))
    assert (_scores(school, batch["id"]), "logprobs" in school.mistral.bodies[-1]) == ([1.0], False)
    batch = school.run(school.classify(["text 7 xx"], model="m@4"))
    assert _scores(school, batch["id"]) == pytest.approx([_sure("text 7 xx")], abs=1e-5)


def _list_models(school: School, dated: str) -> None:
    """From now on `chat-latest` means the model of that name, and workers know."""
    capabilities = {"completion_chat": True}
    card = {"id": dated, "object": "model", "type": "base", "capabilities": capabilities, "aliases": ["chat-latest"]}

    async def listed(request: web.Request) -> web.Response | None:
        return web.json_response({"object": "list", "data": [card]}) if request.path == "/v1/models" else None

    school.mistral.control_plane_reply = listed
    with writing(school.engine) as connection:
        keep_list(connection, [Listed(dated, ("chat-latest",))])


def test_what_was_found_out_of_a_model_is_not_believed_of_the_next_one_of_its_name(school: School) -> None:
    for dated, said, told in (("chat-2606", refuses, False), ("chat-2609", tells, True)):
        school.mistral.faults = [said]
        _list_models(school, dated)
        training = school.run(school.train(method="prompt", base_model="chat-latest"))
        history = school.history(training["id"])
        assert (f"{dated} tells log-probabilities" in history) is told
        assert {body["model"] for body in school.mistral.bodies if "logprobs" in body} == {dated}
        school.mistral.bodies.clear()


def test_a_refusal_that_is_not_about_log_probabilities_is_not_remembered(school: School) -> None:
    refused = web.Response(status=422, body=b'{"message":"no structured answers today"}')
    school.mistral.faults = [lambda texts, body: refused if "logprobs" in body else None]
    training = school.run(school.train(method="prompt"))
    assert training["state"] == "succeeded"
    assert "could not be asked for log-probabilities" in school.history(training["id"])
    school.mistral.faults = [tells]
    training = school.run(school.train(method="prompt"))
    assert "scores are probabilities" in school.history(training["id"])


def test_a_cap_below_the_price_of_asking_is_kept(school: School) -> None:
    school.mistral.faults.append(tells)
    training = school.run(school.train(method="prompt", yes=False, max_cost=0.0))
    assert (training["state"], school.mistral.requests) == ("succeeded", 0)


def test_an_evaluation_calibrates_the_scores_of_a_prompt(school: School) -> None:
    school.mistral.faults.append(tells)
    school.dataset(
        "checked",
        SCHEMA[:1],
        validation=[{"text": f"text {n} {'x' * (n % 4)}", "labels": {"intent": LABELS[n % 4]}} for n in range(400)],
        test=[{"text": f"text {n} {'x' * (n % 4)}", "labels": {"intent": LABELS[n % 4]}} for n in range(400, 800)],
    )
    school.run(school.train(method="prompt"))
    evaluation = school.run(
        submit_evaluation(school.engine, school.sender, model="m", dataset="checked", calibrate=True)
    )
    assert evaluation["state"] == "completed"
    temperature = evaluation["summary"]["calibration"]["intent"]["temperature"]
    batch = school.run(school.classify(["text 3 xx"]))
    score = _sure("text 3 xx")
    weights = [share ** (1 / temperature) for share in (score, *[(1 - score) / 3] * 3)]
    assert _scores(school, batch["id"]) == pytest.approx([weights[0] / sum(weights)], abs=1e-4)
