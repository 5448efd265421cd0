"""The JSON schema of all documents. `python -m labelmill.contracts.documents.schema FILE` writes it (`make schema`)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from labelmill.contracts.documents.comparison import ComparisonDocument
from labelmill.contracts.documents.datasets import DatasetEntry
from labelmill.contracts.documents.jobs import (
    BatchDocument,
    DatasetDocument,
    EvaluationDocument,
    JobEntry,
    SubmittedDocument,
    TrainingDocument,
)
from labelmill.contracts.documents.models import (
    ChangedModelDocument,
    ModelDocument,
    ModelEntry,
    ModelThresholdsDocument,
    RegisteredModelDocument,
    RemovedAliasDocument,
)
from labelmill.contracts.documents.money import QuoteDocument, SpendDocument

#: Every document that a command prints about jobs, datasets and models.
DOCUMENTS: tuple[Any, ...] = (
    SubmittedDocument,
    JobEntry,
    DatasetDocument,
    TrainingDocument,
    BatchDocument,
    EvaluationDocument,
    DatasetEntry,
    ModelEntry,
    ModelDocument,
    ModelThresholdsDocument,
    RegisteredModelDocument,
    ChangedModelDocument,
    RemovedAliasDocument,
    ComparisonDocument,
    SpendDocument,
    QuoteDocument,
)


def schema_of_documents() -> dict[str, Any]:
    """One schema; each document is one of its `$defs`."""
    inputs = [(document.__name__, "serialization", TypeAdapter(document)) for document in DOCUMENTS]
    _, schema = TypeAdapter.json_schemas(inputs, title="Documents of Labelmill")  # type: ignore[arg-type]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def written_schema() -> str:
    """The schema as the file holds it."""
    return json.dumps(schema_of_documents(), indent=2) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(written_schema())
