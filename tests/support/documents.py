"""Documents are held to their types: the same keys in the same order, each with a value of its type."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

from labelmill.contracts.documents.jobs import (
    BatchDocument,
    DatasetDocument,
    EvaluationDocument,
    TrainingDocument,
)

_OF_KIND: dict[str, Any] = {
    "dataset": DatasetDocument,
    "training": TrainingDocument,
    "batch": BatchDocument,
    "evaluation": EvaluationDocument,
}
D = TypeVar("D", bound=Mapping[str, Any])


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def assert_is(document: Mapping[str, Any], kind: Any) -> None:
    """A document of this type, and nothing else."""
    assert list(document) == list(kind.__annotations__)
    assert _adapter(kind).validate_python(document, strict=True).keys() == document.keys()


def checked(document: D) -> D:
    """The status document of a job."""
    assert_is(document, _OF_KIND[document["kind"]])
    return document
