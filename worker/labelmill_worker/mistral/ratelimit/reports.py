"""What a process has yet to report to Redis of the answers that one model gave."""

from __future__ import annotations

from dataclasses import replace

from labelmill.contracts.reported_limits import ReportedLimits

REPORT_EVERY_S = 0.25  #: A window of a minute moves by half a percent in this time.


class Reports:
    """Collects answers between two reports."""

    def __init__(self) -> None:
        self.is_first = False  #: The request that goes alone, for the model's limits are unknown, is this process'.
        self._latest: ReportedLimits | None = None
        self._used = self._reserved = 0
        self._next_at = 0.0
        self._bounds: tuple[int | None, int | None] = (None, None)

    def note(self, limits: ReportedLimits | None, used: int, reserved: int, now: float) -> None:
        """Add an answer that came now. `used`: its tokens, as Mistral counts them; `reserved`: those that were reserved
        for it and count as under way until what is left of the month is reported."""
        before, self._latest = self._latest, limits or self._latest
        is_old = self.is_first or now >= self._next_at
        if before is not None and limits is not None and not is_old:
            # answers come in any order, and of the month the lowest is the truth
            left = [part for part in (before.tokens_left_of_month, limits.tokens_left_of_month) if part is not None]
            self._latest = replace(limits, tokens_left_of_month=min(left, default=None))
        self._used += used
        self._reserved += reserved

    def is_due(self, now: float, limits: ReportedLimits | None) -> bool:
        """Whether to report: after some time, at once where a limit has changed or others wait for the answer."""
        if self.is_first or now >= self._next_at:
            return True
        return limits is not None and (limits.requests_per_minute, limits.tokens_per_minute) != self._bounds

    def take(self, now: float) -> tuple[list[int], int]:
        """Begins a new report. Returns the script's first arguments but the age of the request, -1 being not told, and
        the tokens that were reserved for its answers."""
        latest, used, reserved = self._latest or ReportedLimits(), self._used, self._reserved
        self._latest, self._used, self._reserved, self.is_first = None, 0, 0, False
        self._next_at = now + REPORT_EVERY_S
        self._bounds = (latest.requests_per_minute, latest.tokens_per_minute)
        told = (
            latest.requests_per_minute,
            latest.requests_left,
            latest.tokens_per_minute,
            latest.tokens_left,
            latest.tokens_left_of_month,
        )
        return [*(-1 if number is None else number for number in told), used], reserved
