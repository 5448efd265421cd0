"""A prepared dataset and a model made from it, as rows alone: no files, nothing was trained."""

from __future__ import annotations

from sqlalchemy import insert
from sqlalchemy.engine import Connection

from labelmill.core.database.tables import DatasetRow, ModelRow

SCHEMA = [{"name": "intent", "labels": ["a", "b"], "multi": False}]


def add_dataset_and_model(connection: Connection) -> None:
    """The dataset `d` and the promoted model `m`."""
    dataset = {"id": "prep_0000000001", "name": "d", "version": 1, "state": "ready", "fingerprint": "f"}
    stored = {"spec": {}, "splits": {"train": 4, "test": 4}, "files": {}, "label_schema": SCHEMA}
    connection.execute(insert(DatasetRow).values(dataset | stored))
    model = {"name": "m", "version": 1, "promoted": True, "method": "embedding", "remote_model": "mistral-embed"}
    connection.execute(insert(ModelRow).values(model | {"label_schema": SCHEMA}))
