"""Labelmill: classify text in bulk with Mistral models.

from labelmill import Client
batch = Client().classify("texts.jsonl", model="intents")
batch.wait()
for row in batch.results():
    print(row["id"], row["predictions"]["intent"]["label"])
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labelmill.async_client import (
        AsyncBatch,
        AsyncClient,
        AsyncEvaluation,
        AsyncJob,
        AsyncPreparation,
        AsyncTraining,
    )
    from labelmill.client import Client
    from labelmill.contracts.documents.jobs import (
        BatchDocument,
        DatasetDocument,
        EvaluationDocument,
        JobDocument,
        JobEntry,
        TrainingDocument,
    )
    from labelmill.contracts.documents.results import Prediction, ResultRow, RowError
    from labelmill.contracts.errors import (
        BrokerUnavailable,
        DatabaseOutdated,
        DatabaseUnavailable,
        DatabaseUnsuitable,
        InvalidInput,
        KeyTaken,
        LabelmillError,
        NotFound,
        Permanent,
        Retryable,
    )
    from labelmill.contracts.sources import AsyncSource, Source
    from labelmill.handles import Batch, Evaluation, Job, Preparation, Training

__all__ = [
    "AsyncBatch",
    "AsyncClient",
    "AsyncEvaluation",
    "AsyncJob",
    "AsyncPreparation",
    "AsyncSource",
    "AsyncTraining",
    "Batch",
    "BatchDocument",
    "BrokerUnavailable",
    "Client",
    "DatabaseOutdated",
    "DatabaseUnavailable",
    "DatabaseUnsuitable",
    "DatasetDocument",
    "Evaluation",
    "EvaluationDocument",
    "InvalidInput",
    "Job",
    "JobDocument",
    "JobEntry",
    "KeyTaken",
    "LabelmillError",
    "NotFound",
    "Permanent",
    "Prediction",
    "Preparation",
    "ResultRow",
    "Retryable",
    "RowError",
    "Source",
    "Training",
    "TrainingDocument",
    "__version__",
]
__version__ = "0.1.0"

_MODULES = {
    "async_client": ("AsyncBatch", "AsyncClient", "AsyncEvaluation", "AsyncJob", "AsyncPreparation", "AsyncTraining"),
    "client": ("Client",),
    "contracts.documents.jobs": (
        "BatchDocument",
        "DatasetDocument",
        "EvaluationDocument",
        "JobDocument",
        "JobEntry",
        "TrainingDocument",
    ),
    "contracts.documents.results": ("Prediction", "ResultRow", "RowError"),
    "contracts.sources": ("AsyncSource", "Source"),
    "handles": ("Batch", "Evaluation", "Job", "Preparation", "Training"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    # `import labelmill` stays instant: the worker imports `labelmill.contracts` through here
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF.get(name, 'contracts.errors')}"), name)
