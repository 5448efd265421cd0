"""Documents have one definition, from which the schema in docs/ is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from documents import assert_is
from sqlalchemy import event, insert
from sqlalchemy.engine import Engine

from labelmill.contracts.documents.datasets import DatasetEntry
from labelmill.contracts.documents.jobs import (
    BatchDocument,
    DatasetDocument,
    EvaluationDocument,
    JobEntry,
    TrainingDocument,
)
from labelmill.contracts.documents.models import ModelDocument, ModelEntry
from labelmill.contracts.documents.schema import DOCUMENTS, written_schema
from labelmill.core.database import writing
from labelmill.core.database.tables import BatchRow, DatasetRow, EvaluationRow, ModelRow, TrainingRow, utc_now
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import load_settings
from labelmill.services.context import ServiceContext
from labelmill.services.datasets import DatasetsRequest, list_datasets
from labelmill.services.jobs.documents import job_status
from labelmill.services.jobs.listing import JobsRequest, list_jobs
from labelmill.services.jobs.requests import JobRequest
from labelmill.services.models import registry

SCHEMA = Path(__file__).parents[3] / "docs/schema/documents.json"
LABELS = [{"name": "intent", "labels": ["a", "b"], "multi": False}]


@pytest.fixture
def context(engine: Engine) -> ServiceContext:
    """With one job of each kind, as it was just submitted."""
    at = utc_now()
    with writing(engine) as connection:
        connection.execute(
            insert(ModelRow).values(
                no=1, name="m", version=1, promoted=True, method="embedding", label_schema=LABELS, created_at=at
            )
        )
        connection.execute(insert(DatasetRow).values(id="prep_1", state="queued", name="d", spec={}, created_at=at))
        connection.execute(
            insert(TrainingRow).values(
                id="train_1",
                state="queued",
                name="m",
                method="embedding",
                dataset_id="prep_1",
                options={},
                created_at=at,
            )
        )
        connection.execute(
            insert(BatchRow).values(id="batch_1", state="queued", model_no=1, model_ref="m", options={}, created_at=at)
        )
        connection.execute(
            insert(EvaluationRow).values(
                id="eval_1",
                state="queued",
                model_no=1,
                model_ref="m",
                dataset_id="prep_1",
                dataset_ref="d@1",
                split="test",
                created_at=at,
            )
        )
    return ServiceContext(engine, MessageSender.connect(load_settings(broker_url="redis://127.0.0.1:1/0")))


def test_the_schema_in_the_docs_is_current() -> None:
    assert SCHEMA.read_text() == written_schema(), "run `make schema`"


def test_the_schema_has_every_document() -> None:
    defined = json.loads(SCHEMA.read_text())["$defs"]
    assert [one.__name__ for one in DOCUMENTS if one.__name__ not in defined] == []
    assert set(defined["BatchDocument"]["required"]) == set(BatchDocument.__annotations__)


@pytest.mark.parametrize(
    ("job_id", "kind"),
    [
        ("prep_1", DatasetDocument),
        ("train_1", TrainingDocument),
        ("batch_1", BatchDocument),
        ("eval_1", EvaluationDocument),
    ],
)
def test_a_status_document_is_what_its_type_says(context: ServiceContext, job_id: str, kind: Any) -> None:
    document = job_status(context, JobRequest(job_id))
    assert_is(document, kind)
    assert orjson.loads(orjson.dumps(document)) == document


def test_entries_of_lists_are_what_their_types_say(context: ServiceContext) -> None:
    jobs = list_jobs(context, JobsRequest())
    assert len(jobs) == 4
    for job in jobs:
        assert_is(job, JobEntry)
    assert_is(list_datasets(context, DatasetsRequest())[0], DatasetEntry)
    assert_is(registry.list_models(context, registry.ModelsRequest())[0], ModelEntry)
    assert_is(registry.show_model(context, registry.ModelRequest("m")), ModelDocument)


@pytest.mark.parametrize(("job_id", "most"), [("prep_1", 4), ("train_1", 5), ("batch_1", 9), ("eval_1", 7)])
def test_a_status_takes_few_statements(context: ServiceContext, job_id: str, most: int) -> None:
    statements: list[str] = []
    event.listen(context.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    job_status(context, JobRequest(job_id))
    selects = [one for one in statements if one.lstrip().upper().startswith("SELECT")]
    assert len(selects) <= most, selects
