"""Optional fields of the lines of batch jobs, and servers that refuse them."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from mill import some_texts
from mistral_answers import LABELS, label_of
from remote_mill import RemoteMill
from sqlalchemy import insert

from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.core.database import writing
from labelmill.core.database.tables import ModelRow, ModelTargetRow
from labelmill_worker.inference.models.prompt import answer_schema, system_message

SCHEMA = LabelSchema((Target("intent", tuple(sorted(LABELS))),))
RECIPE = {"system": system_message(SCHEMA, {}), "answer_schema": answer_schema(SCHEMA), "logprobs": True}


@pytest.fixture
def prompted(mill: RemoteMill) -> str:
    columns = {"version": 1, "promoted": True, "remote_model": "mistral-small-2603", "label_schema": SCHEMA.to_json()}
    with writing(mill.engine) as connection:
        row = insert(ModelRow).values(name="prompted", method="prompt", recipe=RECIPE, **columns).returning(ModelRow.no)
        connection.execute(insert(ModelTargetRow).values(model_no=connection.scalar(row), target=0, name="intent"))
    return "prompted"


def _refuse(field: str, message: str) -> Any:
    def reply(texts: list[str], body: dict[str, Any]) -> web.Response | None:
        del texts
        return web.json_response({"message": message}, status=422) if field in body else None

    return reply


@pytest.mark.parametrize("field", ["reasoning_effort", "logprobs", "top_logprobs"])
def test_lines_are_sent_again_without_the_field_that_a_server_refuses(
    mill: RemoteMill, prompted: str, field: str
) -> None:
    mill.memory.faults = [_refuse(field, f"body.{field}: Extra inputs are not permitted")]
    texts = some_texts(20)
    batch = mill.submit(texts, model=prompted)
    status = mill.run(batch)
    assert (status["state"], status["rows"]["failed"]) == ("completed", 0)
    assert mill.predictions(batch) == {row: label_of(text) for row, text in enumerate(texts)}
    jobs = len(mill.jobs.created)
    again = mill.submit(texts, model=prompted)
    mill.run(again)
    assert len(mill.jobs.created) == jobs + 1, "what was refused once is not sent again"
    assert mill.predictions(again) == mill.predictions(batch)


def test_a_line_carries_no_key_of_a_prompt_cache(mill: RemoteMill, prompted: str) -> None:
    mill.memory.faults = [_refuse("prompt_cache_key", "body.prompt_cache_key: Extra inputs are not permitted")]
    mill.run(mill.submit(some_texts(5), model=prompted))
    assert len(mill.jobs.created) == 1


def test_a_server_that_refuses_a_field_which_is_not_sent_fails_the_rows_in_the_end(
    mill: RemoteMill, prompted: str
) -> None:
    mill.memory.faults = [_refuse("messages", "reasoning_effort is none of ours")]
    status = mill.run(mill.submit(some_texts(5), model=prompted))
    assert status["rows"]["pending"] == 0
    assert status["rows"]["labelled"] == 0
