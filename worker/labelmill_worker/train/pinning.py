"""Names such as `mistral-small-latest` mean another model some day, at another price and with other answers: a version
keeps the model that its name meant when it was made."""

from __future__ import annotations

from typing import Any

import structlog

from labelmill.contracts.errors import LabelmillError
from labelmill.core.database import reading
from labelmill.core.remote_models import ASKED_AS, meaning_of, read_list
from labelmill_worker.store.remote_models import keep_models
from labelmill_worker.train.step_context import StepContext

log = structlog.get_logger()


def meant_model(step: StepContext) -> str:
    """The model that a training's name means, as far as it is known: what is asked and found out before its version is
    made is true of a model, and the name may mean another one some day."""
    with reading(step.engine) as connection:
        return meaning_of(step.spec.base_model, read_list(connection))


def pinned(step: StepContext, recipe: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name by which a new version asks its model, and its recipe."""
    asked_as = step.spec.base_model
    try:
        models = keep_models(step.engine, step.plane.list_models())
    except LabelmillError as error:
        log.warning("Mistral's models cannot be listed: names are kept as they are known", reason=error.message)
        with reading(step.engine) as connection:
            models = read_list(connection)
    remote_model = meaning_of(asked_as, models)
    if remote_model != asked_as:
        recipe = recipe | {ASKED_AS: asked_as}
    if (embedding_model := recipe.get("embedding_model")) is not None:
        recipe = recipe | {"embedding_model": meaning_of(embedding_model, models)}
    return remote_model, recipe
