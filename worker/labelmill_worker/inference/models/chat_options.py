"""Fields of a chat request that make it cheaper. A server may refuse them: the adapter then asks without."""

from __future__ import annotations

import hashlib
import re

from labelmill_worker.inference.models.version import ModelVersion

#: Small 4, medium 3.5, large 4 and what comes after them, and the aliases that lead to them.
_REASONING = re.compile(r"mistral-(small|medium|large)-(latest|4\b|3[.-]5|2[6-9]\d\d)")


def reasons_by_default(model: str) -> bool:
    """Whether a model thinks before it answers unless it is told not to: labels need no thought that is paid for."""
    return _REASONING.match(model) is not None


def prompt_cache_key(model: ModelVersion) -> str:
    """One for all requests of a model version: they begin alike, and Mistral charges a tenth for what it has cached."""
    prompt = f"{model.name}\n{model.remote_model}\n{model.recipe.get('system')}"
    return f"labelmill-{hashlib.sha256(prompt.encode()).hexdigest()[:24]}"
