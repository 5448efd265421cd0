"""The services of models: list and show them, promote, name, archive and delete versions, set thresholds.

Each change is one transaction; the message of a remote action is sent after it is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.engine import Connection

from labelmill.contracts.documents.models import (
    ChangedModelDocument,
    ModelDocument,
    ModelEntry,
    ModelThresholdsDocument,
    RegisteredModelDocument,
)
from labelmill.contracts.field_names import Notice
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import ModelRow
from labelmill.services.context import ServiceContext
from labelmill.services.models import at_mistral, listing, resolving, settings_of, versions
from labelmill.services.models.resolving import ref_of


@dataclass(frozen=True)
class ModelsRequest:
    """Which models to list; `archived` ones too."""

    archived: bool = False


@dataclass(frozen=True)
class ModelRequest:
    """One model: `intents` (the promoted version), `intents@2`, `intents@ALIAS`, or an id of Mistral's."""

    ref: str


@dataclass(frozen=True)
class AliasRequest:
    """A second name for a version: `NAME@alias` means `ref`."""

    ref: str
    alias: str


@dataclass(frozen=True)
class NoteRequest:
    """A note on a version; an empty text removes it."""

    ref: str
    text: str


@dataclass(frozen=True)
class ThresholdsRequest:
    """Thresholds of a model: `0.6` for every target, `TARGET=0.6`, or `TARGET.LABEL=0.6` of a multi-label one."""

    ref: str
    thresholds: Sequence[str]


@dataclass(frozen=True)
class RegisterRequest:
    """A name for a classifier that was fine-tuned before. `multi`: its multi-label targets; `chats`: it takes chats."""

    name: str
    remote_id: str
    multi: Sequence[str] = ()
    chats: bool = False


@dataclass(frozen=True)
class RetireRequest:
    """A version to archive or delete, `at_mistral` too where it was fine-tuned there."""

    ref: str
    at_mistral: bool = True


@dataclass(frozen=True)
class ChangedModel:
    """A version after a change, with warnings."""

    document: ChangedModelDocument
    warnings: tuple[Notice, ...] = ()


def list_models(context: ServiceContext, request: ModelsRequest) -> list[ModelEntry]:
    """Models by name and version, those that were not deleted."""
    with reading(context.engine) as connection:
        return listing.list_models(connection, everything=request.archived)


def show_model(context: ServiceContext, request: ModelRequest) -> ModelDocument:
    """Everything about a version: the dataset, the training, evaluations, batches. Raises NotFound, InvalidInput."""
    with reading(context.engine) as connection:
        document = listing.lineage(connection, request.ref)
    if document["dataset"] and document["dataset"]["files"]:
        document["dataset"]["files"] = {
            name: context.storage.shown(reference) for name, reference in document["dataset"]["files"].items()
        }
    return document


def promote(context: ServiceContext, request: ModelRequest) -> ChangedModel:
    """Make a version the one that the model's bare name means; an archived one is restored. Raises NotFound,
    InvalidInput."""
    return _change(context, lambda connection: versions.promote(connection, request.ref))


def rollback(context: ServiceContext, request: ModelRequest) -> ChangedModel:
    """Promote the version that was promoted before; `ref` is the model's bare name. Raises NotFound, InvalidInput."""
    return _change(context, lambda connection: versions.rollback(connection, request.ref))


def set_alias(context: ServiceContext, request: AliasRequest) -> ChangedModel:
    """Give a version a second name, or move that name to it. Raises NotFound, InvalidInput."""
    return _change(context, lambda connection: settings_of.set_alias(connection, request.ref, request.alias))


def remove_alias(context: ServiceContext, request: ModelRequest) -> None:
    """Remove the alias that `ref`, `NAME@ALIAS`, names. Raises NotFound."""
    with writing(context.engine) as connection:
        settings_of.remove_alias(connection, request.ref)


def set_note(context: ServiceContext, request: NoteRequest) -> ChangedModel:
    """Write a note on a version. Raises NotFound, InvalidInput."""
    return _change(context, lambda connection: settings_of.set_note(connection, request.ref, request.text))


def archive(context: ServiceContext, request: RetireRequest) -> ChangedModel:
    """Archive a version: no new job can use it until it is promoted. Raises NotFound, InvalidInput."""
    return _change(context, lambda connection: versions.archive(connection, request.ref, at_mistral=request.at_mistral))


def delete(context: ServiceContext, request: RetireRequest) -> ChangedModel:
    """Delete a version permanently; its predictions stay. Raises NotFound, InvalidInput."""
    return _change(context, lambda connection: versions.delete(connection, request.ref, at_mistral=request.at_mistral))


def register(context: ServiceContext, request: RegisterRequest) -> RegisteredModelDocument:
    """Give a classifier that was fine-tuned before a name. Raises InvalidInput."""
    with writing(context.engine) as connection:
        row = resolving.register(connection, request.name, request.remote_id, multi=request.multi, chats=request.chats)
        return {"model": ref_of(row), "remote_model": str(row.remote_model)}


def thresholds(context: ServiceContext, request: ModelRequest) -> ModelThresholdsDocument:
    """A version's thresholds. Raises NotFound, InvalidInput."""
    with writing(context.engine) as connection:
        return _thresholds_of(resolving.resolve_model(connection, request.ref))


def set_thresholds(context: ServiceContext, request: ThresholdsRequest) -> ModelThresholdsDocument:
    """Set some thresholds of a version. Raises NotFound, InvalidInput."""
    with writing(context.engine) as connection:
        return _thresholds_of(settings_of.set_thresholds(connection, request.ref, request.thresholds))


def clear_thresholds(context: ServiceContext, request: ModelRequest) -> ModelThresholdsDocument:
    """Remove all thresholds of a version. Raises NotFound."""
    with writing(context.engine) as connection:
        return _thresholds_of(settings_of.clear_thresholds(connection, request.ref))


def _thresholds_of(row: ModelRow) -> ModelThresholdsDocument:
    return {"model": ref_of(row), "thresholds": row.thresholds or {}}


def _change(context: ServiceContext, act: Callable[[Connection], ModelRow]) -> ChangedModel:
    with writing(context.engine) as connection:
        row = act(connection)
        columns = (ModelRow.state, ModelRow.promoted, ModelRow.note)
        now = connection.execute(select(*columns).where(ModelRow.no == row.no)).one()
    warnings = at_mistral.send_remote_action(context.sender, row)
    document: ChangedModelDocument = {
        "model": ref_of(row),
        "state": now.state,
        "promoted": now.promoted,
        "note": now.note,
        "remote_wish": row.remote_wish,
        "warnings": [warning.message for warning in warnings],
    }
    return ChangedModel(document, warnings)
