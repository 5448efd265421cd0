"""Mistral's list of models, kept for the producer to warn by."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.engine import Engine

from labelmill.core.database import writing
from labelmill.core.remote_models import Listed, keep_list
from labelmill_worker.ports.control_plane import RemoteModel


def keep_models(engine: Engine, models: Iterable[RemoteModel]) -> list[Listed]:
    """Replace the list by one that was just read."""
    listed = [Listed(model.id, model.aliases, model.deprecated_at, model.replacement) for model in models]
    with writing(engine) as connection:
        keep_list(connection, listed)
    return listed
