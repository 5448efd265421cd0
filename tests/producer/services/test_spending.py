"""What was spent, by job, model, day and month; currencies are never added."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from asked import gather_report
from pydantic import TypeAdapter
from sqlalchemy import insert
from sqlalchemy.engine import Engine

from labelmill.contracts.documents.money import SpendDocument
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.states import BatchState
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import LedgerRow, ModelRow
from labelmill.core.jobs.transitions import create_job
from labelmill.core.money.ledger import costs_of_jobs
from labelmill.core.queue.sender import MessageSender
from labelmill.core.remote_models import Listed, keep_list
from labelmill.report.parts import Curves, Grid
from labelmill.services.context import ServiceContext
from labelmill.services.spending import SpendRequest, spend


def pay(engine: Engine, day: str, job: str, model: str, amount: float | None, **more: Any) -> None:
    at = datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=UTC)
    line = {"at": at, "day": day, "job_id": job, "batch_id": job, "model": model, "mode": "realtime", "requests": 2}
    counts = {"input_tokens": 100, "output_tokens": 20, "cached_tokens": 64, "estimated": False, "currency": "USD"}
    with writing(engine) as connection:
        connection.execute(insert(LedgerRow).values(line | counts | {"amount": amount} | more))


@pytest.fixture
def context(engine: Engine) -> ServiceContext:
    pay(engine, "2026-10-31", "batch_1", "mistral-embed", 0.25)
    pay(engine, "2026-11-01", "batch_1", "mistral-embed", 0.5, estimated=True)
    pay(engine, "2026-11-30", "train_1", "ministral-8b-latest", 1.0)
    pay(engine, "2026-11-30", "train_2", "ministral-3b-latest", 4.5, currency="EUR", mode="fine-tuning")
    pay(engine, "2026-12-01", "batch_2", "ft:classifier:unknown", None)
    return ServiceContext(engine, cast("MessageSender", object()))


def keys(context: ServiceContext, **request: Any) -> dict[str, Any]:
    document = spend(context, SpendRequest(**request))
    TypeAdapter(SpendDocument).validate_python(document)
    assert document["total"] == sum(row["amount"] or 0 for row in document["rows"])
    return {row["key"]: row["amount"] for row in document["rows"]}


def test_money_is_summed_by_job_model_day_and_month(context: ServiceContext) -> None:
    assert keys(context, by="job") == {"train_1": 1.0, "batch_1": 0.75, "batch_2": None}
    by_model = {"ministral-8b-latest": 1.0, "mistral-embed": 0.75, "ft:classifier:unknown": None}
    assert keys(context, by="model") == by_model
    by_day = {"2026-10-31": 0.25, "2026-11-01": 0.5, "2026-11-30": 1.0, "2026-12-01": None}
    assert list(keys(context, by="day").items()) == list(by_day.items())
    assert keys(context) == {"2026-10": 0.25, "2026-11": 1.5, "2026-12": None}
    first = spend(context, SpendRequest(by="job"))["rows"][1]
    assert first == {
        "key": "batch_1",
        "requests": 4,
        "tokens": 240,
        "cached_tokens": 128,
        "amount": 0.75,
        "estimated": True,
    }


def test_one_model_is_one_row_whichever_of_its_fixed_names_was_asked(context: ServiceContext) -> None:
    pay(context.engine, "2026-11-30", "batch_1", "mistral-embed-2312", 2.0)
    pay(context.engine, "2026-11-30", "batch_1", "ministral-8b-2512", 0.5)
    with writing(context.engine) as connection:
        listed = [
            Listed("mistral-embed-2312", ("mistral-embed",)),
            Listed("ministral-8b-2512", ("ministral-8b-latest",)),
        ]
        keep_list(connection, listed)
    by_model = {"mistral-embed-2312": 2.75, "ministral-8b-latest": 1.0, "ministral-8b-2512": 0.5}
    assert keys(context, by="model") == by_model | {"ft:classifier:unknown": None}
    (row,) = (row for row in spend(context, SpendRequest("model"))["rows"] if row["key"] == "mistral-embed-2312")
    assert (row["requests"], row["tokens"], row["estimated"]) == (6, 360, True)


def test_both_days_count_and_euros_are_apart(context: ServiceContext) -> None:
    assert keys(context, since="2026-11-01", until="2026-11-30") == {"2026-11": 1.5}
    (euros,) = spend(context, SpendRequest(by="job", since="2026-11-30"))["other_currencies"]
    assert (euros["currency"], euros["total"], [row["key"] for row in euros["rows"]]) == ("EUR", 4.5, ["train_2"])


@pytest.mark.parametrize(
    ("request_fields", "words"),
    [
        ({"by": "year"}, "one of job, model, day, month"),
        ({"since": "yesterday"}, "a day such as 2026-11-27"),
        ({"since": "2026-W48-5"}, "a day such as 2026-11-27"),
        ({"until": "2026-02-30"}, "a day such as 2026-11-27"),
        ({"since": "2026-12-01", "until": "2026-11-01"}, "later than"),
    ],
)
def test_what_is_no_way_to_group_or_no_day_is_refused(
    context: ServiceContext, request_fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        spend(context, SpendRequest(**request_fields))


def test_the_cost_of_a_job_is_not_known_if_one_of_its_models_has_no_price(context: ServiceContext) -> None:
    pay(context.engine, "2026-12-01", "batch_1", "unheard-of", None)
    with reading(context.engine) as connection:
        costs = costs_of_jobs(connection, ["batch_1", "train_1"])
    assert (costs["batch_1"]["amount"], costs["batch_1"]["tokens"]) == (None, 360)
    assert costs["train_1"]["amount"] == 1.0


def test_a_report_shows_what_a_job_has_cost_and_how_that_grew(context: ServiceContext) -> None:
    with writing(context.engine) as connection:
        number = connection.execute(
            insert(ModelRow).values(name="m", version=1, method="embedding").returning(ModelRow.no)
        ).scalar_one()
        create_job(
            connection,
            "batch_1",
            BatchState.SUBMITTING,
            "submitted",
            model_no=number,
            model_ref="m@1",
            mode="realtime",
            priority="normal",
            options={},
        )
    report = gather_report(context.engine, "batch_1")
    (table,) = [part for part in report.parts if isinstance(part, Grid) and "of them cached" in part.headings]
    assert table.rows == [("mistral-embed", "realtime", 4, 200, 128, 40, "0.75 USD", "counted here")]
    (curve,) = [part for part in report.figures() if isinstance(part, Curves)]
    assert [total for _, total in curve.series["cost"]] == [0.25, 0.75]
