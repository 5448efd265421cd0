"""Inner models: what jobs ask for themselves. They are in no list and have no name that a command takes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.inner_methods import LOGPROBS, REFUSED_FIELDS, VECTORS
from labelmill.contracts.label_schema import LabelSchema
from labelmill.core.database import reading, writing
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import BatchRow, ModelRow, ModelTargetRow, utc_now

_INNER = "inner"  #: Their state.
_OF_LOGPROBS = -1  #: The version of the model that asks whether log-probabilities are told.
_OF_REFUSED_FIELDS = -2  #: Of the one that keeps which fields are refused.


def embedding_model(connection: Connection, remote_model: str) -> int:
    """The key of the inner model for an embedding model of Mistral's, made on its first use."""
    return _inner_model(connection, remote_model, 0, VECTORS, remote_model, LabelSchema(()))


def logprobs_model(connection: Connection, remote_model: str, schema: LabelSchema) -> int:
    """The key of the inner model that asks whether a model's server tells log-probabilities, made on its first use."""
    return _inner_model(connection, remote_model, _OF_LOGPROBS, LOGPROBS, remote_model, schema)


def trial_model(
    connection: Connection, training_id: str, remote_model: str, schema: LabelSchema, recipe: dict[str, Any]
) -> int:
    """The key of the inner model that a training tries before its version is made; the first recipe stays."""
    return _inner_model(connection, training_id, 0, "prompt", remote_model, schema, recipe)


def trial_recipe(engine: Engine, training_id: str) -> dict[str, Any] | None:
    """The recipe that a training tries; None: it does not try one yet."""
    with reading(engine) as connection:
        return connection.scalar(
            select(ModelRow.recipe).where(ModelRow.name == training_id, ModelRow.state == _INNER, ModelRow.version == 0)
        )


def tells_logprobs(engine: Engine, remote_model: str) -> bool | None:
    """Whether the server tells a model's log-probabilities, as `remember_logprobs` wrote it. None: it was not asked."""
    statement = select(ModelRow.recipe).where(
        ModelRow.name == remote_model, ModelRow.version == _OF_LOGPROBS, ModelRow.method == LOGPROBS
    )
    with reading(engine) as connection:
        return (connection.scalar(statement) or {}).get("told")


def remember_logprobs(engine: Engine, batch_no: int, *, told: bool) -> None:
    """Keep the answer for all later trainings, of the model that the batch asked."""
    asked = select(BatchRow.model_no).where(BatchRow.no == batch_no).scalar_subquery()
    with writing(engine) as connection:
        connection.execute(update(ModelRow).where(ModelRow.no == asked).values(recipe={"told": told}))


def refused_fields_model(connection: Connection, remote_model: str) -> int:
    """The key of the inner model that keeps which fields a model's server refuses, made on its first use."""
    return _inner_model(connection, remote_model, _OF_REFUSED_FIELDS, REFUSED_FIELDS, remote_model, LabelSchema(()))


def is_of_refused_fields(remote_model: str) -> tuple[ColumnElement[bool], ...]:
    """The conditions that select this inner model."""
    return (
        ModelRow.name == remote_model,
        ModelRow.version == _OF_REFUSED_FIELDS,
        ModelRow.method == REFUSED_FIELDS,
    )


def _inner_model(
    connection: Connection,
    name: str,
    version: int,
    method: str,
    remote_model: str,
    schema: LabelSchema,
    recipe: dict[str, Any] | None = None,
) -> int:
    values = {
        "name": name,
        "version": version,
        "state": _INNER,
        "promoted": False,
        "method": method,
        "remote_model": remote_model,
        "label_schema": schema.to_json(),
        "recipe": recipe,
        "created_at": utc_now(),
    }
    connection.execute(dialect_of(connection).insert_or_ignore(ModelRow).values(values))
    of_model = (ModelRow.name == name, ModelRow.version == version, ModelRow.method == method)
    number = int(connection.execute(select(ModelRow.no).where(*of_model)).scalar_one())
    names = [{"model_no": number, "target": at, "name": target.name} for at, target in enumerate(schema.targets)]
    if names:
        connection.execute(dialect_of(connection).insert_or_ignore(ModelTargetRow), names)
    return number
