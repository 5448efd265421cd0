"""Counts the requests that a strategy would make, and their tokens. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from labelmill.contracts.documents.money import CostRange, QuoteOption
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.core.model_limits import ModelLimit
from labelmill.core.money.costs import priced_model
from labelmill.core.money.prices import CURRENCY, PriceList
from labelmill.core.money.token_counts import count_all
from labelmill.core.money.tokenizers import TokenCounter
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.strategies.strategy import Strategy
from labelmill_worker.inference.vectors import DIMENSIONS
from labelmill_worker.ports.inference import Call, Endpoint

_DIMENSIONS = 1024  #: Of a vector whose model is not known here.


@dataclass(frozen=True)
class AccountLimits:
    """The limits of all calls and of single models; None: none."""

    requests_per_second: float | None = None
    tokens_per_minute: float | None = None
    of_models: Mapping[str, ModelLimit] | None = None


@dataclass
class _Used:
    requests: int = 0
    asked: int = 0
    written_min: int = 0
    written_max: int = 0


class CallTally:
    """What the calls for some texts take."""

    def __init__(self, strategy: Strategy, counter: TokenCounter, *, is_estimated: bool = False) -> None:
        self._strategy = strategy
        self._counter = counter
        self._shortest = counter.of_answer(_shortest_answer(strategy.schema or LabelSchema(())))
        self._used: dict[str, _Used] = {}
        self._is_estimated = is_estimated or counter.tokens_by == "estimate"
        self._example: Call | None = None

    def add(self, texts: list[str]) -> None:
        """Count the requests for some texts, as a chunk of them would be sent."""
        for request in self._strategy.plan(range(len(texts)), texts):
            vectors, vector_call = None, self._strategy.vector_call(request)
            if vector_call is not None:
                self._count(vector_call, request)
                # which examples are nearest is not known without vectors; others are about as long
                self._is_estimated = True
                vectors = np.zeros((len(request), DIMENSIONS.get(vector_call.model, _DIMENSIONS)), np.float32)
            call = self._strategy.call(request, vectors)
            self._count(call, request)
            self._example = self._example or call

    def include(self, other: CallTally) -> None:
        """Count what another tally has counted too."""
        for model, used in other._used.items():
            total = self._used.setdefault(model, _Used())
            total.requests += used.requests
            total.asked += used.asked
            total.written_min += used.written_min
            total.written_max += used.written_max
        self._is_estimated |= other._is_estimated and bool(other._used)
        self._example = self._example or other._example

    def _count(self, call: Call, request: Request) -> None:
        used = self._used.setdefault(call.model, _Used())
        used.requests += 1
        if call.endpoint is Endpoint.EMBEDDINGS:
            used.asked += sum(map(self._counter.of_text, call.body["input"]))
        elif call.endpoint is Endpoint.CHAT_COMPLETIONS:
            used.asked += self._counter.of_chat(call.body["messages"])
            used.written_min += self._shortest * len(request)
            used.written_max += int(call.body["max_tokens"])
        else:
            used.asked += count_all(request.texts)
            self._is_estimated = True

    def option(self, prices: PriceList, limits: AccountLimits, *, mode: str = "realtime") -> QuoteOption:
        """What all of it would take and cost."""
        used = self._used.values()
        return {
            "requests": sum(one.requests for one in used),
            "input_tokens": sum(one.asked for one in used),
            "output_tokens": [sum(one.written_min for one in used), sum(one.written_max for one in used)],
            "tokens_by": "estimate" if self._is_estimated else self._counter.tokens_by,
            "cost": self._cost(prices, mode),
            "seconds": self._seconds(limits) if mode == "realtime" else None,
            "example": _as_sent(self._example),
        }

    def _cost(self, prices: PriceList, mode: str) -> CostRange | None:
        least = most = 0.0
        for model, used in self._used.items():
            price = prices.price_of(priced_model(model, prices))
            if price is None:
                return None
            least += price.amount(used.asked, used.written_min, mode=mode)
            most += price.amount(used.asked, used.written_max, mode=mode)
        return {"min": round(least, 8), "max": round(most, 8), "currency": CURRENCY}

    def _seconds(self, limits: AccountLimits) -> float | None:
        """As long as the tightest limit makes it. None: there is none, and the speed of answers is not known."""
        times = []
        of_models = limits.of_models or {}
        for model, used in self._used.items():
            limit = of_models.get(model, ModelLimit())
            times += _times(used.requests, _tokens(used), limit.requests_per_minute, limit.tokens_per_minute)
        everything = self._used.values()
        per_minute = limits.requests_per_second and limits.requests_per_second * 60
        requests, tokens = sum(one.requests for one in everything), sum(map(_tokens, everything))
        times += _times(requests, tokens, per_minute, limits.tokens_per_minute)
        return round(max(times), 1) if times else None


def _tokens(used: _Used) -> int:
    return used.asked + used.written_min


def _times(requests: int, tokens: int, per_minute: float | None, tokens_per_minute: float | None) -> list[float]:
    """Seconds by each limit that is set."""
    pairs: tuple[tuple[int, float | None], ...] = ((requests, per_minute), (tokens, tokens_per_minute))
    return [60 * count / limit for count, limit in pairs if limit]


def _shortest_answer(schema: LabelSchema) -> str:
    return orjson.dumps({target.name: _shortest(target) for target in schema.targets}).decode()


def _shortest(target: Target) -> str | list[str]:
    return [] if target.multi else min(target.labels, key=len, default="")


def _as_sent(call: Call | None) -> dict[str, Any] | None:
    return None if call is None else {"path": call.endpoint.value, "body": dict(call.body)}
