"""Datasets name their files relative to the data folder, which every host may mount where it likes.

The paths of before began with the data folder of the worker that wrote them. Nobody knows it any more, but what follows
it is known: `datasets/<id>/<file>`.
"""

import re
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_REFERENCE = re.compile(r"(?:.*/)?(datasets/[^/]+/[^/]+)", re.DOTALL)
_DATASETS = sa.table("datasets", sa.column("no", sa.Integer), sa.column("files", sa.JSON))
_BATCHES = sa.table("batches", sa.column("id", sa.String), sa.column("options", sa.JSON))
#: Batches that a worker opened for a split; of what users submit the source stays as they wrote it.
_OF_SPLITS = """SELECT batch_id FROM evaluations UNION SELECT calibration_batch_id FROM evaluations
UNION SELECT batch_id FROM trainings"""


def upgrade() -> None:
    connection = op.get_bind()
    for no, files in connection.execute(sa.select(_DATASETS)).all():
        if files:
            changed = {split: _reference(path) for split, path in files.items()}
            connection.execute(sa.update(_DATASETS).where(_DATASETS.c.no == no).values(files=changed))
    for (batch_id,) in connection.execute(sa.text(_OF_SPLITS)).all():
        this_one = _BATCHES.c.id == batch_id
        options = connection.scalar(sa.select(_BATCHES.c.options).where(this_one))
        if options and "source" in options:
            changed = options | {"source": _source(options["source"])}
            connection.execute(sa.update(_BATCHES).where(this_one).values(options=changed))


def downgrade() -> None:
    """Nothing: the folder that was taken off is not known."""


def _source(path: Any) -> Any:
    reference = _reference(path)
    return path if reference == path else f"data-folder:{reference}"


def _reference(path: Any) -> Any:
    found = _REFERENCE.fullmatch(path) if isinstance(path, str) else None
    return found[1] if found else path
