"""Fields of a request that a model does well without, and that some servers refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import structlog

from labelmill.contracts.errors import RequestRefused, Retryable
from labelmill_worker.ports.inference import Call

log = structlog.get_logger()

#: Those of a group mean nothing without each other.
_GROUPS = (("reasoning_effort",), ("prompt_cache_key",), ("logprobs", "top_logprobs"))


def refused_optional_fields(sent: Mapping[str, Any], error: RequestRefused) -> frozenset[str]:
    """The optional fields of a request that its refusal is about; none where it names none that was sent."""
    refused: set[str] = set()
    for group in _GROUPS:
        if any(name in sent and name in error.message for name in group):
            refused.update(group)
    return frozenset(refused)


class FieldRefused(Retryable):
    """The request is to be sent again: it goes without the field then."""

    @classmethod
    def of(cls, model: str, fields: frozenset[str]) -> Self:
        """For the fields that a model refused."""
        told = f"{model} refuses {' and '.join(sorted(fields))} and is asked without"
        if "logprobs" in fields:
            told += "; labels score 1 and 0 then, for which thresholds mean nothing"
        return cls(told, 0.0)


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
        named = refused_optional_fields(sent, error)
        if named:
            self._by_model[call.model] = self._by_model.get(call.model, frozenset()) | named
            refusal = FieldRefused.of(call.model, named)
            log.warning("optional fields of requests are refused", reason=refusal.message)
            raise refusal from error
