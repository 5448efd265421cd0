"""A text that is asked alone and meets a 429, and that may be larger than what its model gets in a minute."""

from __future__ import annotations

from labelmill.contracts.errors import RateLimited, RequestRefused


class RefusedAlone(RateLimited):
    """`is_explained`: what this fleet was answered in the minute before may be why."""

    def __init__(self, model: str, tokens: int, refusal: RateLimited, *, is_explained: bool) -> None:
        message = f"a text of about {tokens:,} tokens may be more than {model} may get in a minute: {refusal.message}"
        super().__init__(message, refusal.retry_after_s, refusal.limits)
        self.model, self.tokens, self.is_explained = model, tokens, is_explained

    def as_refusal(self) -> RequestRefused:
        """The error of its row, once it is given up."""
        return RequestRefused(
            f"a text of about {self.tokens:,} tokens met a 429 again and again while nothing else was sent to "
            f"{self.model}: it is more than the model may get in a minute",
            413,
        )
