"""A model version, as far as asking it needs to know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labelmill.contracts.label_schema import LabelSchema


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a model and how it is asked."""

    name: str  #: As errors name it: `intents@2`.
    method: str
    remote_model: str  #: Mistral's id of the model that is asked.
    schema: LabelSchema | None  #: None: not known before its first good answer.
    recipe: Mapping[str, Any]  #: What its training found out: a file of its own, a prompt, targets with many labels.
