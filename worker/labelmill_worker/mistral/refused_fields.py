"""Fields of a request that a model does well without, and that some servers refuse. What is refused is kept where all
workers find it, for requests in realtime and for batch jobs alike."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Protocol, Self

import structlog

from labelmill.contracts.errors import LabelmillError, RequestRefused, Retryable
from labelmill_worker.ports.inference import Call

log = structlog.get_logger()

#: Those of a group mean nothing without each other.
_GROUPS = (("reasoning_effort",), ("prompt_cache_key",), ("logprobs", "top_logprobs"))


class RefusalStore(Protocol):
    """Where refused fields are kept. Both raise LabelmillError when it is out of reach."""

    def read(self, model: str) -> frozenset[str]:
        """The fields that a model's server refused."""
        ...

    def add(self, model: str, fields: frozenset[str]) -> None:
        """Keep that it refused these."""
        ...


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

    def __init__(self, store: RefusalStore | None = None) -> None:
        """Without a store it is known to this process alone."""
        self._store = store
        self._by_model: dict[str, frozenset[str]] = {}

    def knows(self, model: str) -> bool:
        """Whether `of` answers at once."""
        return model in self._by_model

    def of(self, model: str) -> frozenset[str]:
        """The fields that a model refused. The first time it asks the store."""
        if model not in self._by_model:
            stored: frozenset[str] = frozenset()
            if self._store is not None:
                with contextlib.suppress(LabelmillError):  # then the model will refuse them once more
                    stored = self._store.read(model)
            self._by_model.setdefault(model, stored)
        return self._by_model[model]

    def body_of(self, call: Call) -> Mapping[str, Any]:
        """The call's body without what its model refused."""
        refused = self.of(call.model)
        if not refused:
            return call.body
        return {name: value for name, value in call.body.items() if name not in refused}

    def refusal(self, model: str, sent: Mapping[str, Any], error: RequestRefused) -> FieldRefused | None:
        """Take note of a refusal of what was sent: the error to raise in its place where it names an optional field.
        Asks the store."""
        named: set[str] = set()
        for group in _GROUPS:
            if any(name in sent and name in error.message for name in group):
                named.update(group)
        if not named:
            return None
        fields = frozenset(named)
        self._by_model[model] = self.of(model) | fields
        if self._store is not None:
            with contextlib.suppress(LabelmillError):
                self._store.add(model, fields)
        refusal = FieldRefused.of(model, fields)
        log.warning("optional fields of requests are refused", reason=refusal.message)
        return refusal
