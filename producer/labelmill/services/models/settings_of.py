"""The settings of a version: aliases, a note, thresholds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, insert, update
from sqlalchemy.engine import Connection

from labelmill.contracts.bounds import MAX_NAME_CHARS, check_text, plain, shown
from labelmill.contracts.errors import InvalidInput, NotFound
from labelmill.core.database import lock_name
from labelmill.core.database.tables import ModelAliasRow, ModelRow
from labelmill.services.models.resolving import find_version, ref_of, resolve_model

_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}")


def set_alias(connection: Connection, ref: str, alias: str) -> ModelRow:
    """Make `name@alias` mean this version, whatever it meant before. Raises NotFound, InvalidInput."""
    if not _ALIAS.fullmatch(alias):
        raise InvalidInput(
            f"{shown(alias)} cannot be an alias: a letter, then letters, digits, '.', '_' and '-'", field="alias"
        )
    row = find_version(connection, ref)
    if row.version == 0:
        raise InvalidInput(f"{ref} is an id of Mistral's: register it under a name first", field="ref")
    lock_name(connection, "model", row.name)
    _forget(connection, row.name, alias)
    connection.execute(insert(ModelAliasRow).values(name=row.name, alias=alias, model_no=row.no))
    return row


def remove_alias(connection: Connection, ref: str) -> None:
    """Remove an alias, written `name@alias`. Raises NotFound."""
    check_text("the alias", ref, 2 * MAX_NAME_CHARS, field="ref")
    name, _, alias = ref.partition("@")
    if not _forget(connection, name, alias):
        raise NotFound(f"there is no alias {plain(ref)}; `labelmill models` shows them")


def _forget(connection: Connection, name: str, alias: str) -> bool:
    named = (ModelAliasRow.name == name, ModelAliasRow.alias == alias)
    return bool(connection.execute(delete(ModelAliasRow).where(*named)).rowcount)


def set_note(connection: Connection, ref: str, text: str) -> ModelRow:
    """Write a note on a version; an empty text removes it. Raises NotFound, InvalidInput."""
    check_text("the note", text, field="text")
    row = find_version(connection, ref)
    connection.execute(update(ModelRow).where(ModelRow.no == row.no).values(note=text.strip() or None))
    return row


def set_thresholds(connection: Connection, ref: str, items: Sequence[str]) -> ModelRow:
    """Set thresholds of a model: `0.6` for every target, `TARGET=0.6`, or `TARGET.LABEL=0.6` of a multi-label one.

    A single-label target abstains under its threshold; a label of a multi-label target holds from its own on. Raises
    NotFound, InvalidInput.
    """
    row = resolve_model(connection, ref)
    thresholds: dict[str, Any] = dict(row.thresholds or {})
    for item in items:
        where, _, number = item.rpartition("=")
        _set(thresholds, row.label_schema or [], where, _threshold(item, number))
    connection.execute(update(ModelRow).where(ModelRow.no == row.no).values(thresholds=thresholds))
    row.thresholds = thresholds
    return row


def clear_thresholds(connection: Connection, ref: str) -> ModelRow:
    """Remove a model's thresholds: no target abstains, labels of multi-label targets are given from 0.5 on. Raises
    NotFound."""
    row = resolve_model(connection, ref)
    connection.execute(update(ModelRow).where(ModelRow.no == row.no).values(thresholds=None))
    row.thresholds = None
    return row


def _threshold(item: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError as error:
        raise InvalidInput(
            f"{shown(item)} is not a NUMBER, TARGET=NUMBER or TARGET.LABEL=NUMBER", field="thresholds"
        ) from error
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise InvalidInput(f"{shown(item)} is not between 0 and 1", field="thresholds")
    return value


def _set(thresholds: dict[str, Any], schema: list[dict[str, Any]], where: str, value: float) -> None:
    targets = {target["name"]: target for target in schema}
    if not where:
        if not targets:
            thresholds["*"] = value  # a raw id whose labels are not known yet
        for name in targets:
            _set(thresholds, schema, name, value)
        return
    if where in targets:
        target = targets[where]
        thresholds[where] = dict.fromkeys(target["labels"], value) if target.get("multi") else value
        return
    for name, target in targets.items():
        label = where.removeprefix(f"{name}.")
        if target.get("multi") and label != where and label in target["labels"]:
            # a threshold that was set for all before the targets were known applies to the other labels
            of_all = dict.fromkeys(target["labels"], thresholds["*"]) if "*" in thresholds else {}
            thresholds[name] = thresholds.get(name, of_all) | {label: value}
            return
    raise InvalidInput(
        f"{shown(where)} is not a target of the model, nor TARGET.LABEL of a multi-label one; it has {_names(targets)}",
        field="thresholds",
    )


def _names(targets: dict[str, dict[str, Any]]) -> str:
    return (
        ", ".join(f"{name} (multi-label)" if target.get("multi") else name for name, target in targets.items())
        or "none yet"
    )


__all__ = ["clear_thresholds", "ref_of", "remove_alias", "set_alias", "set_note", "set_thresholds"]
