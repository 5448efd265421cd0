"""Until when requests of one claim may start. Belongs to the event loop: other threads send it what they know."""

from __future__ import annotations

import time


class SendingWindow:
    """Open until the task's slice of time or the chunk's lease is over, or it is closed. Times are of the monotonic
    clock."""

    def __init__(self, slice_until: float, lease_until: float) -> None:
        self._slice_until = slice_until
        self.lease_until = lease_until
        self._is_closed = False

    @property
    def deadline(self) -> float:
        """No request starts later."""
        return min(self._slice_until, self.lease_until)

    @property
    def is_over(self) -> bool:
        """Whether no request may start any more; what is under way is awaited."""
        return self._is_closed or time.monotonic() >= self.deadline

    def prolong_lease(self, until: float) -> None:
        """The lease was renewed."""
        self.lease_until = until

    def close(self) -> None:
        """Start nothing more."""
        self._is_closed = True
