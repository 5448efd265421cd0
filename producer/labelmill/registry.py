"""The models there are: finding one by what a person writes, and promoting, archiving and deleting versions."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from labelmill.contracts.errors import InvalidInput, NotFound
from labelmill.contracts.states import BatchState, EvaluationState
from labelmill.contracts.tables import BatchRow, EvaluationRow, ModelRow, utc_now

READY, ARCHIVED, DELETED = "ready", "archived", "deleted"

#: Batches that still send texts to their model, or may again.
_BUSY_BATCH = [
    state.value for state in (BatchState.SUBMITTING, BatchState.QUEUED, BatchState.RUNNING, BatchState.PAUSED)
]
_BUSY_EVALUATION = [EvaluationState.QUEUED.value, EvaluationState.RUNNING.value]

RAW_PREFIX = "ft:"  #: Begins the ids that Mistral gives to trained models.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def check_name(name: str) -> None:
    """Raise InvalidInput unless `name` can be a model's name."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is no name for a model: letters, digits, '.', '_' and '-', at most 200")


def resolve_model(connection: Connection, ref: str) -> ModelRow:
    """The model that `ref` names: `intents` (the promoted version), `intents@2`, or a Mistral id such as
    `ft:classifier:…`, which becomes a row of its own (version 0) on first use and therefore needs a connection that
    may write. Raises NotFound, InvalidInput for versions that were archived or deleted."""
    if ref.startswith(RAW_PREFIX):
        return _raw_model(connection, ref)
    name, at, version = ref.partition("@")
    if not at:
        return _promoted(connection, name)
    if not version.isdigit() or not name:
        raise InvalidInput(f"{ref!r} names no version: write {name or 'NAME'}@1")
    row = _first(connection, ModelRow.name == name, ModelRow.version == int(version))
    if row is None or row.version == 0:
        raise NotFound(f"there is no model {ref}; `labelmill models` lists them")
    _check_usable(row)
    return row


def register(
    connection: Connection, name: str, remote_id: str, *, multi: Sequence[str] = (), chats: bool = False
) -> ModelRow:
    """Give a classifier that was fine-tuned elsewhere a name: it is the next version of `name`.

    Its labels are learnt from its first good answer. Raises InvalidInput."""
    check_name(name)
    if not remote_id.startswith(RAW_PREFIX) or any(letter.isspace() for letter in remote_id):
        raise InvalidInput(f"{remote_id!r} is no id of a fine-tuned model: it begins with {RAW_PREFIX}")
    same = (ModelRow.name == name, ModelRow.remote_model == remote_id, ModelRow.state == READY)
    if (there := _first(connection, *same)) is not None:
        return there
    version = (connection.scalar(select(func.max(ModelRow.version)).where(ModelRow.name == name)) or 0) + 1
    recipe = {"multi": list(multi), "chats": chats} if multi or chats else None
    try:
        connection.execute(
            insert(ModelRow).values(
                name=name, version=version, state=READY, promoted=version == 1, method="factory",
                remote_model=remote_id, recipe=recipe, created_at=utc_now(),
            )
        )  # fmt: skip
    except IntegrityError as error:
        raise InvalidInput(f"{name}@{version} was made by somebody else just now: try again") from error
    row = _first(connection, ModelRow.name == name, ModelRow.version == version)
    assert row is not None  # noqa: S101 - written a line above
    return row


def list_models(connection: Connection, *, everything: bool = False) -> list[dict[str, Any]]:
    """Models by name and version; archived ones too with `everything`. Deleted ones are never listed."""
    shown = [READY, ARCHIVED] if everything else [READY]
    statement = select(ModelRow.__table__).where(ModelRow.state.in_(shown)).order_by(ModelRow.name, ModelRow.version)
    return [_document(ModelRow(**row)) for row in connection.execute(statement).mappings()]


def promote(connection: Connection, ref: str) -> ModelRow:
    """Let `name@version` answer to the bare name; an archived version comes back. Raises NotFound, InvalidInput."""
    row = _version(connection, ref)
    if row.version == 0:
        raise InvalidInput(f"{ref} is an id of Mistral's and has no versions to promote")
    connection.execute(update(ModelRow).where(ModelRow.name == row.name).values(promoted=ModelRow.no == row.no))
    connection.execute(update(ModelRow).where(ModelRow.no == row.no).values(state=READY))
    return row


def archive(connection: Connection, ref: str) -> ModelRow:
    """Put a version away: nothing new runs on it until it is promoted again. Raises NotFound, InvalidInput while a
    batch or an evaluation runs on it."""
    return _retire(connection, ref, ARCHIVED)


def delete(connection: Connection, ref: str) -> ModelRow:
    """Remove a version for good; its number is not given again, and what it predicted stays. Raises NotFound,
    InvalidInput while a batch or an evaluation runs on it."""
    return _retire(connection, ref, DELETED)


def _retire(connection: Connection, ref: str, state: str) -> ModelRow:
    row = _version(connection, ref)
    busy = connection.scalar(
        select(BatchRow.id).where(BatchRow.model_no == row.no, BatchRow.state.in_(_BUSY_BATCH)).limit(1)
    ) or connection.scalar(
        select(EvaluationRow.id)
        .where(EvaluationRow.model_no == row.no, EvaluationRow.state.in_(_BUSY_EVALUATION))
        .limit(1)
    )
    if busy:
        raise InvalidInput(f"{busy} uses {ref}: wait for it, or cancel it")
    connection.execute(update(ModelRow).where(ModelRow.no == row.no).values(state=state, promoted=False))
    return row


def _version(connection: Connection, ref: str) -> ModelRow:
    """A version for a change of its own: never by a bare name, so that nobody deletes what he did not mean."""
    name, at, version = ref.partition("@")
    if ref.startswith(RAW_PREFIX):
        row = _first(connection, ModelRow.name == ref, ModelRow.version == 0)
    elif at and version.isdigit():
        row = _first(connection, ModelRow.name == name, ModelRow.version == int(version))
    else:
        raise InvalidInput(f"name the version: {name or 'NAME'}@1")
    if row is None or row.state == DELETED:
        raise NotFound(f"there is no model {ref}; `labelmill models` lists them")
    return row


def _promoted(connection: Connection, name: str) -> ModelRow:
    row = _first(connection, ModelRow.name == name, ModelRow.promoted.is_(True), ModelRow.state == READY)
    if row is not None:
        return row
    versions = connection.scalars(
        select(ModelRow.version).where(ModelRow.name == name, ModelRow.state == READY).order_by(ModelRow.version)
    ).all()
    if versions:
        there = ", ".join(f"{name}@{version}" for version in versions)
        raise NotFound(f"no version of {name} is promoted; there is {there}")
    raise NotFound(f"there is no model {name!r}; `labelmill models` lists them")


def _raw_model(connection: Connection, remote_id: str) -> ModelRow:
    row = _first(connection, ModelRow.name == remote_id, ModelRow.version == 0)
    if row is None:
        known = insert(ModelRow).values(
            name=remote_id, version=0, state=READY, promoted=False, method="factory", remote_model=remote_id,
            created_at=utc_now(),
        )  # fmt: skip
        # two submissions may name it first at the same time: the later one takes the earlier one's row
        with contextlib.suppress(IntegrityError), connection.begin_nested():
            connection.execute(known)
        row = _first(connection, ModelRow.name == remote_id, ModelRow.version == 0)
        if row is None:
            raise NotFound(f"the model {remote_id} cannot be recorded")
    _check_usable(row)
    return row


def _check_usable(row: ModelRow) -> None:
    ref = f"{row.name}@{row.version}" if row.version else row.name
    if row.state == DELETED:
        raise NotFound(f"the model {ref} was deleted")
    if row.state == ARCHIVED:
        raise InvalidInput(f"the model {ref} is archived")
    if row.state != READY:
        raise NotFound(f"the model {ref} is not ready yet: its training goes on")


def _first(connection: Connection, *conditions: Any) -> ModelRow | None:
    found = connection.execute(select(ModelRow.__table__).where(*conditions).limit(1)).mappings().first()
    return ModelRow(**found) if found else None


def _document(row: ModelRow) -> dict[str, Any]:
    schema = row.label_schema or []
    return {
        "model": f"{row.name}@{row.version}" if row.version else row.name,
        "name": row.name,
        "version": row.version,
        "promoted": row.promoted,
        "state": row.state,
        "method": row.method,
        "remote_model": row.remote_model,
        "targets": {target["name"]: len(target["labels"]) for target in schema},
        "thresholds": row.thresholds or {},
        "training": row.training_id,
        "dataset": row.dataset_id,
        "created_at": row.created_at.isoformat(),
    }
