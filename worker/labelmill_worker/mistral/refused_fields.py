"""Fields of a request that a model does well without, and that some servers refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labelmill.contracts.errors import RequestRefused, Retryable
from labelmill_worker.ports.inference import Call

OPTIONAL_FIELDS = ("reasoning_effort", "prompt_cache_key")


class FieldRefused(Retryable):
    """The request is to be sent again: it goes without the field then."""


class RefusedFields:
    """Which optional fields each model refused so far."""

    def __init__(self) -> None:
        self._by_model: dict[str, frozenset[str]] = {}

    def body_of(self, call: Call) -> Mapping[str, Any]:
        """The call's body without what its model refused."""
        refused = self._by_model.get(call.model) if self._by_model else None
        if not refused:
            return call.body
        return {name: value for name, value in call.body.items() if name not in refused}

    def learn(self, call: Call, sent: Mapping[str, Any], error: RequestRefused) -> None:
        """Take note of a refusal. Raises FieldRefused where it names an optional field that was sent."""
        named = frozenset(name for name in OPTIONAL_FIELDS if name in sent and name in error.message)
        if named:
            self._by_model[call.model] = self._by_model.get(call.model, frozenset()) | named
            raise FieldRefused(f"{call.model} is asked without {' and '.join(sorted(named))}", 0.0) from error
