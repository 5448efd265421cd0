"""What an answer of Mistral's tells about the limits of the model that was asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReportedLimits:
    """Limits of one model, and what is left of them in the window that slides. None: not told."""

    requests_per_minute: int | None = None
    requests_left: int | None = None
    tokens_per_minute: int | None = None
    tokens_left: int | None = None
    tokens_per_month: int | None = None
    tokens_left_of_month: int | None = None

    @property
    def forbids_all(self) -> bool:
        """Whether a 429 with these limits will never pass: the plan allows nothing of the model."""
        return self.requests_per_minute == 0 or self.tokens_per_minute == 0

    def explain_refusal(self, tokens: int) -> bool:
        """Whether a request of so many tokens is refused because a window is used up."""
        left = self.tokens_left
        return self.requests_left == 0 or (left is not None and left < max(1, tokens))
