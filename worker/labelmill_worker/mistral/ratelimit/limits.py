"""Which limits bind a model's requests: its own, and those of the whole fleet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from labelmill.core.settings import Settings

#: Requests are spaced a little wider than the limit: what a busy machine or the network delays would otherwise stand
#: beside the next ones in Mistral's window, one too many. 4% of a second is more than a start varies.
MARGIN = 1.04


@dataclass(frozen=True, slots=True)
class Limit:
    """Requests and tokens a second; 0: no limit."""

    requests_per_s: float = 0.0
    tokens_per_s: float = 0.0

    @classmethod
    def of(cls, requests_per_s: float | None, tokens_per_minute: float | None) -> Limit:
        """What is sent under these limits, None being none: a little less than they allow."""
        return cls((requests_per_s or 0.0) / MARGIN, (tokens_per_minute or 0.0) / 60 / MARGIN)

    def at_most(self, other: Limit) -> Limit:
        """Where both have a limit, the lower one."""
        return Limit(_lower(self.requests_per_s, other.requests_per_s), _lower(self.tokens_per_s, other.tokens_per_s))

    def __bool__(self) -> bool:
        return self.requests_per_s > 0 or self.tokens_per_s > 0


@dataclass(frozen=True)
class RateLimits:
    """What the settings allow; Mistral's answers tell what is allowed besides."""

    fleet: Limit = Limit()
    models: Mapping[str, Limit] = field(default_factory=dict)

    @classmethod
    def from_settings(cls, settings: Settings) -> RateLimits:
        fleet = Limit.of(settings.requests_per_second, settings.tokens_per_minute)
        models = {
            model: Limit.of(limit.requests_per_minute and limit.requests_per_minute / 60, limit.tokens_per_minute)
            for model, limit in settings.model_limits.items()
        }
        return cls(fleet, models)

    def of(self, model: str | None, other_names: Iterable[str] = ()) -> Limit:
        """What one model may be sent: its own limit, by whichever of its names it is set, and never more than the
        fleet's. None: calls without a model."""
        limit = self.fleet
        for name in (model, *other_names):
            if name is not None and (own := self.models.get(name)) is not None:
                limit = own.at_most(limit)
        return limit


def _lower(left: float, right: float) -> float:
    return min(left, right) if left and right else left or right
