"""Every table, typed. The same on SQLite and PostgreSQL; `migrations/` makes them, and CI holds the two together.

Rows of a batch are narrow on purpose: integer keys, float32 scores in the model version's label order. Analysts read
the views `predictions` and `row_errors`, which put ids and names back and give every duplicate its own line.
"""

import pkgutil
from importlib import import_module

from labelmill.core.database.tables.base import Base, Json, utc_now
from labelmill.core.database.tables.batches import (
    OPEN_CHUNK,
    BatchRow,
    ChunkInputRow,
    ChunkRepeatsRow,
    ChunkRow,
    DuplicateRow,
)
from labelmill.core.database.tables.budgets import BudgetRow, ReservationRow
from labelmill.core.database.tables.caches import AnswerIndexRow, IndexedChunkRow, VectorRow
from labelmill.core.database.tables.datasets import DatasetRow
from labelmill.core.database.tables.evaluations import AnalysisRow, EvaluationRow
from labelmill.core.database.tables.events import KEPT_DEAD_LETTERS, DeadLetterRow, EventRow
from labelmill.core.database.tables.ledger import LedgerRow
from labelmill.core.database.tables.locks import LockRow
from labelmill.core.database.tables.metadata import JobMetadataRow
from labelmill.core.database.tables.models import ModelAliasRow, ModelRow, ModelTargetRow, PromotionRow
from labelmill.core.database.tables.predictions import PREDICTIONS_VIEW, ROW_ERRORS_VIEW, PredictionRow, RowErrorRow
from labelmill.core.database.tables.remote_batches import RemoteBatchRow, RemoteChunkRow
from labelmill.core.database.tables.remote_models import RemoteModelRow, ReportedLimitsRow
from labelmill.core.database.tables.trainings import TrainingRow
from labelmill.core.database.tables.workers import DelayRow, UnableWorkerRow, WorkerRow

__all__ = [
    "KEPT_DEAD_LETTERS",
    "OPEN_CHUNK",
    "PREDICTIONS_VIEW",
    "ROW_ERRORS_VIEW",
    "AnalysisRow",
    "AnswerIndexRow",
    "Base",
    "BatchRow",
    "BudgetRow",
    "ChunkInputRow",
    "ChunkRepeatsRow",
    "ChunkRow",
    "DatasetRow",
    "DeadLetterRow",
    "DelayRow",
    "DuplicateRow",
    "EvaluationRow",
    "EventRow",
    "IndexedChunkRow",
    "JobMetadataRow",
    "Json",
    "LedgerRow",
    "LockRow",
    "ModelAliasRow",
    "ModelRow",
    "ModelTargetRow",
    "PredictionRow",
    "PromotionRow",
    "RemoteBatchRow",
    "RemoteChunkRow",
    "RemoteModelRow",
    "ReportedLimitsRow",
    "ReservationRow",
    "RowErrorRow",
    "TrainingRow",
    "UnableWorkerRow",
    "VectorRow",
    "WorkerRow",
    "utc_now",
]

for _module in pkgutil.iter_modules(__path__):  # a table that is not named above is there too
    import_module(f"{__name__}.{_module.name}")
