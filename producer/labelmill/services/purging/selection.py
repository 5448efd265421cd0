"""Which jobs may be purged: those that ended before a given time and that no remaining job or model needs.

A training and a dataset stay as long as a model version that is not deleted came from them; a training also while files
that it uploaded are to be deleted at Mistral, for nothing else leads to them; a dataset also while a job
refers to it that stays; a batch while the training or evaluation that runs it stays for its age. A paused batch has not
ended, for a person may let it go on; that of a training or an evaluation goes with this job.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, exists, false, or_

from labelmill.contracts.ids import Kind
from labelmill.contracts.job_kinds import KINDS
from labelmill.contracts.states import RemoteStep
from labelmill.core.database.tables import BatchRow, DatasetRow, EvaluationRow, ModelRow, RemoteBatchRow, TrainingRow
from labelmill.core.jobs.tables import TABLE_OF, AnyJobTable, is_cancellable, is_open
from labelmill.core.jobs.uploaded_files import has_uploaded_files
from labelmill.services.models.resolving import DELETED


def ended_before(table: AnyJobTable, before: datetime) -> ColumnElement[bool]:
    """The job is old enough to be purged."""
    waits = is_cancellable(table)
    if table is BatchRow:
        waits &= BatchRow.owner_id.is_(None)
    return ~is_open(table) & ~waits & (table.finished_at < before)


def is_needed(kind: Kind, before: datetime) -> ColumnElement[bool]:
    """A remaining job or model needs the job, however old it is."""
    if kind is Kind.TRAINING:
        made = exists().where(ModelRow.training_id == TrainingRow.id, ModelRow.state != DELETED)
        return made | has_uploaded_files()
    if kind is Kind.DATASET:
        repeating = DatasetRow.__table__.alias().c
        return or_(
            exists().where(ModelRow.dataset_id == DatasetRow.id, ModelRow.state != DELETED),
            exists().where(TrainingRow.dataset_id == DatasetRow.id, ~may_go(Kind.TRAINING, before)),
            exists().where(EvaluationRow.dataset_id == DatasetRow.id, ~may_go(Kind.EVALUATION, before)),
            exists().where(
                repeating.repeats == DatasetRow.id,
                or_(repeating.finished_at.is_(None), repeating.finished_at >= before),
            ),
        )
    if kind is Kind.BATCH:
        return or_(
            # its jobs at Mistral are still to be stopped and deleted
            exists().where(RemoteBatchRow.batch_no == BatchRow.no, RemoteBatchRow.step != RemoteStep.DONE.value),
            *(
                exists().where(TABLE_OF[other].id == BatchRow.owner_id, ~ended_before(TABLE_OF[other], before))
                for other, entry in KINDS.items()
                if entry.inner_batches
            ),
        )
    return false()


def may_go(kind: Kind, before: datetime) -> ColumnElement[bool]:
    """The job is purged."""
    return ended_before(TABLE_OF[kind], before) & ~is_needed(kind, before)
