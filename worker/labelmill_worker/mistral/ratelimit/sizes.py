"""How large the requests to one model are that were answered: what tells a text that fits into no minute from one that
merely comes when a limit is used up."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from labelmill.contracts.reported_limits import ReportedLimits


@dataclass(frozen=True, slots=True)
class RefusalFacts:
    """What the fleet knows of a model when one of its requests meets a 429. Tokens are those that were reserved."""

    quiet_s: float = math.inf  #: Since the fleet's last answer before the request started; inf: no answer is known.
    largest_answered: int = 0  #: Tokens of the largest request of the last hour or so; 0: not known.
    tokens_per_minute: int | None = None  #: The limit as it was told last.


class Sizes:
    """What one process knows of the sizes that a model answers and refuses."""

    def __init__(self) -> None:
        self.tokens_per_minute: int | None = None  #: The limit as it was told last.
        self._largest = self._largest_known = 0  # of the requests answered since the last report; of those known of
        self._answered_at: float | None = None
        self._too_large: int | None = None

    def note_answer(self, tokens: int, now: float) -> None:
        """A request for which so many tokens were reserved was answered now."""
        self._answered_at = now
        if tokens > self._largest:
            self._largest = tokens
            self._largest_known = max(self._largest_known, tokens)
            if self._too_large is not None and tokens >= self._too_large:
                self._too_large = None  # the limit was raised

    def note_facts(self, facts: RefusalFacts) -> None:
        """What the whole fleet knows."""
        self.tokens_per_minute = facts.tokens_per_minute
        self._largest_known = max(self._largest_known, facts.largest_answered)

    def facts(self, started_at: float) -> RefusalFacts:
        """What this process knows, about a refused request that started then."""
        quiet_s = math.inf if self._answered_at is None else max(0.0, started_at - self._answered_at)
        return RefusalFacts(quiet_s, self._largest_known, self.tokens_per_minute)

    def with_known_limit(self, limits: ReportedLimits | None) -> ReportedLimits | None:
        """What a 429 tells, with the limit that was told before where it tells none."""
        if self.tokens_per_minute is None or (limits is not None and limits.tokens_per_minute is not None):
            return limits
        return replace(limits or ReportedLimits(), tokens_per_minute=self.tokens_per_minute)

    def note_too_large(self, tokens: int) -> None:
        """A text of so many tokens was given up: what is as large need not be tried as often."""
        self._too_large = min(tokens, self._too_large or tokens)

    def is_too_large(self, tokens: int) -> bool:
        """Whether a text of so many tokens, or a smaller one, was given up, and none as large was answered since."""
        return self._too_large is not None and tokens >= self._too_large

    def take(self, now: float) -> tuple[int, float]:
        """What is to be reported: the tokens of the largest request answered since the last report, 0 where none was,
        and how long ago the last answer came (s)."""
        largest, self._largest = self._largest, 0
        return largest, now - self._answered_at if self._answered_at is not None else 0.0
