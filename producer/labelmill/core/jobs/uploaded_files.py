"""Files that trainings upload to Mistral.

A training that may have some there has `remote_files`, be it empty; NULL says that there are none.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import ColumnElement

from labelmill.core.database.tables import TrainingRow, utc_now

FILE_EXPIRY_HOURS = 30 * 24  #: Mistral deletes an upload after so long, as long as a training may wait for approval.


def has_uploaded_files() -> ColumnElement[bool]:
    """An ended training's files may still be at Mistral: nobody has deleted them, and they have not expired."""
    not_expired = TrainingRow.finished_at > utc_now() - timedelta(hours=FILE_EXPIRY_HOURS)
    return TrainingRow.remote_files.is_not(None) & not_expired
