"""Finding a model by what a person writes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from labelmill.contracts.bounds import (
    MAX_NAME_CHARS,
    check_name,
    check_plain_name,
    check_text,
    plain,
    shown,
    version_of,
)
from labelmill.contracts.errors import InvalidInput, NotFound
from labelmill.contracts.field_names import named
from labelmill.contracts.job_kinds import TRAINING
from labelmill.contracts.moderation import MODERATION, MODERATION_PREFIX
from labelmill.contracts.near_matches import did_you_mean
from labelmill.contracts.states import RemoteAction, TrainingState
from labelmill.core.database import lock_name
from labelmill.core.database.tables import ModelAliasRow, ModelRow, TrainingRow, utc_now
from labelmill.core.remote_models import ASKED_AS, meaning_of, pin, read_list

READY, ARCHIVED, DELETED = "ready", "archived", "deleted"

_MAX_REF_CHARS = 2 * MAX_NAME_CHARS  #: A name, and after `@` a version or an alias.
RAW_PREFIX = "ft:"  #: Begins the ids that Mistral gives to trained models.
_RAW_METHODS = {RAW_PREFIX: "factory", MODERATION_PREFIX: MODERATION}  #: What a raw id begins with → how it is asked.


def resolve_model(connection: Connection, ref: str) -> ModelRow:
    """The model that `ref` names: `intents` (the promoted version), `intents@2`, `intents@champion` (an alias), or a
    Mistral id such as `ft:classifier:…` or `mistral-moderation-2603`, which becomes a row of its own (version 0) on
    first use and therefore needs a connection that may write; one that moves, such as `mistral-moderation-latest`, is
    the id that it means now. Raises NotFound, InvalidInput for versions that were
    archived or deleted."""
    if is_raw(ref):
        return _raw_model(connection, ref)
    check_text("the model", ref, _MAX_REF_CHARS, field="model")
    name, at, _ = ref.partition("@")
    if not at:
        return _promoted(connection, name)
    row = _numbered(connection, ref)
    if row is None:
        raise _no_model(connection, name, plain(ref))
    _check_usable(row)
    return row


def register(
    connection: Connection, name: str, remote_id: str, *, multi: Sequence[str] = (), chats: bool = False
) -> ModelRow:
    """Give a classifier that was fine-tuned elsewhere, or a moderation model, a name: it is the next version of `name`.

    Its labels are learnt from its first good answer. Raises InvalidInput."""
    check_plain_name("model", name)
    if not is_raw(remote_id):
        raise InvalidInput(
            f"{shown(remote_id)} is not the id of a fine-tuned or a moderation model: these begin with {RAW_PREFIX} "
            f"and {MODERATION_PREFIX}",
            field="remote_id",
        )
    _check_raw_id(remote_id)
    for target in multi:
        check_name(named("multi"), target)
    asked_as, remote_id = remote_id, _meant(connection, remote_id)
    lock_name(connection, "model", name)
    same = (ModelRow.name == name, ModelRow.remote_model == remote_id, ModelRow.state == READY)
    if (existing := _first(connection, *same)) is not None:
        return existing
    version = (connection.scalar(select(func.max(ModelRow.version)).where(ModelRow.name == name)) or 0) + 1
    recipe: dict[str, Any] = {"multi": list(multi), "chats": chats} if multi or chats else {}
    if remote_id != asked_as:
        recipe[ASKED_AS] = asked_as
    connection.execute(
        insert(ModelRow).values(
            name=name,
            version=version,
            state=READY,
            promoted=version == 1,
            method=_raw_method(remote_id),
            remote_model=remote_id,
            recipe=recipe or None,
            created_at=utc_now(),
        )
    )
    row = _first(connection, ModelRow.name == name, ModelRow.version == version)
    assert row is not None  # noqa: S101 - written a line above
    return row


def find_version(connection: Connection, ref: str) -> ModelRow:
    """A version that is to be changed, archived ones too. It cannot be named by a bare name, so that nobody deletes the
    wrong version. Raises NotFound, InvalidInput."""
    check_text("the model", ref, _MAX_REF_CHARS, field="model")
    name, at, _ = ref.partition("@")
    if is_raw(ref):
        row = _raw(connection, _meant(connection, ref)) or _raw(connection, ref)
    elif at:
        row = _numbered(connection, ref)
    else:
        raise InvalidInput(f"name the version: {plain(name) or 'NAME'}@1", field="ref")
    if row is None or row.state == DELETED:
        raise NotFound(f"there is no model {plain(ref)}; `labelmill models` lists them")
    return row


def is_raw(ref: str) -> bool:
    """Whether a model is named by its id at Mistral."""
    return "@" not in ref and ref.startswith(tuple(_RAW_METHODS))


def _raw_method(remote_id: str) -> str:
    return next(method for prefix, method in _RAW_METHODS.items() if remote_id.startswith(prefix))


def ref_of(row: ModelRow) -> str:
    """`intents@1`, or a raw id as it is."""
    return f"{row.name}@{row.version}" if row.version else row.name


def _numbered(connection: Connection, ref: str) -> ModelRow | None:
    """`intents@2`, or `intents@champion` by its alias; None when there is no such version. Raises InvalidInput."""
    name, _, version = ref.partition("@")
    if not name:
        raise InvalidInput(f"{shown(ref)} names no version: write NAME@1", field="model")
    if version.isascii() and version.isdigit():
        number = version_of(version)
        return None if number is None else _first(connection, ModelRow.name == name, ModelRow.version == number)
    model_no = connection.scalar(
        select(ModelAliasRow.model_no).where(ModelAliasRow.name == name, ModelAliasRow.alias == version)
    )
    if model_no is None:
        raise InvalidInput(
            f"{shown(ref)} names no version: write {plain(name)}@1, or an alias that `labelmill models` shows",
            field="model",
        )
    return _first(connection, ModelRow.no == model_no)


def _promoted(connection: Connection, name: str) -> ModelRow:
    row = _first(connection, ModelRow.name == name, ModelRow.promoted.is_(True), ModelRow.state == READY)
    if row is not None:
        return row
    versions = connection.scalars(
        select(ModelRow.version).where(ModelRow.name == name, ModelRow.state == READY).order_by(ModelRow.version)
    ).all()
    if versions:
        existing = ", ".join(f"{name}@{version}" for version in versions)
        raise NotFound(f"no version of {name} is promoted; there is {existing}")
    archived = _first(connection, ModelRow.name == name, ModelRow.state == ARCHIVED)
    if archived is not None:
        raise InvalidInput(
            f"{name} is archived: `labelmill models promote {ref_of(archived)}` brings it back", field="model"
        )
    raise _no_model(connection, name, shown(name))


def _no_model(connection: Connection, name: str, written: str) -> NotFound:
    """The error for a model that does not exist: its training may go on or have failed, or the name is misspelt."""
    training = connection.execute(
        select(TrainingRow.id, TrainingRow.state)
        .where(TrainingRow.name == name, TrainingRow.state != TrainingState.SUCCEEDED.value)
        .order_by(TrainingRow.no.desc())
        .limit(1)
    ).first()
    if training is not None and training.state == TrainingState.AWAITING_APPROVAL.value:
        return NotFound(f"{written} waits for approval: labelmill approve {training.id}")
    if training is not None and training.state in TRAINING.open:
        return NotFound(f"{written} is not ready yet, its training is {training.state}: labelmill watch {training.id}")
    names = connection.scalars(select(ModelRow.name).where(ModelRow.state == READY, ModelRow.version > 0).distinct())
    if (hint := did_you_mean(name, names)) or training is None:
        return NotFound(f"there is no model {written}{hint or '; `labelmill models` lists them'}")
    return NotFound(f"there is no model {written}: its training {training.id} {training.state}")


def _check_raw_id(remote_id: str) -> None:
    check_name("the model id", remote_id, field="model")
    if any(letter.isspace() for letter in remote_id):
        raise InvalidInput(f"the model id {shown(remote_id)} holds white space", field="model")


def _meant(connection: Connection, remote_id: str) -> str:
    """The id that a raw id which may move means now, as far as it is known here."""
    if not remote_id.startswith(MODERATION_PREFIX):
        return remote_id  # a fine-tuned model has one id for good
    meant = meaning_of(remote_id, read_list(connection))
    return meant if meant.startswith(MODERATION_PREFIX) else remote_id


def _raw(connection: Connection, remote_id: str) -> ModelRow | None:
    return _first(connection, ModelRow.name == remote_id, ModelRow.version == 0)


def _raw_model(connection: Connection, asked_as: str) -> ModelRow:
    _check_raw_id(asked_as)
    remote_id = _meant(connection, asked_as)
    row = _raw(connection, remote_id)
    if row is None and remote_id != asked_as and (unpinned := _raw(connection, asked_as)) is not None:
        pin(connection, unpinned, remote_id)
        row = _raw(connection, remote_id)
    if row is None:
        new_row = insert(ModelRow).values(
            name=remote_id,
            version=0,
            state=READY,
            promoted=False,
            method=_raw_method(remote_id),
            remote_model=remote_id,
            created_at=utc_now(),
        )
        # two submissions may use a new id at the same time: the later one takes the earlier one's row
        with contextlib.suppress(IntegrityError), connection.begin_nested():
            connection.execute(new_row)
        row = _raw(connection, remote_id)
        if row is None:
            raise NotFound(f"the model {remote_id} cannot be recorded")
    _check_usable(row)
    return row


def _check_usable(row: ModelRow) -> None:
    ref = ref_of(row)
    if row.state == DELETED:
        raise NotFound(f"the model {ref} was deleted")
    if row.state == ARCHIVED:
        raise InvalidInput(
            f"the model {ref} is archived: `labelmill models promote {ref}` brings it back", field="model"
        )
    if row.state != READY:
        raise NotFound(f"the model {ref} is not ready yet: its training goes on")
    if row.remote_wish == RemoteAction.UNARCHIVE.value:
        raise InvalidInput(f"the model {ref} is being brought back at Mistral: try again in a moment", field="model")


def _first(connection: Connection, *conditions: Any) -> ModelRow | None:
    columns_of_row = connection.execute(select(ModelRow.__table__).where(*conditions).limit(1)).mappings().first()
    return ModelRow(**columns_of_row) if columns_of_row else None
