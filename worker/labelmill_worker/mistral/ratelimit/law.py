"""The numbers of the rate limit's control law, with their units and reasons. `docs/rate-limit.md` explains the law."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class ControlLaw:
    """What the Lua scripts know as `LAW`. Names end in their unit; `_factor` and `_share` are plain ratios."""

    # how far ahead a stored time may lie; what lies further was written before Redis' clock was set back
    max_pause_s: float = 900  #: No longer Retry-After is believed.
    max_reservation_base_s: float = 60  #: What waits for tokens or for another worker's reservations …
    max_reserved_permits: int = 32  #: … and so many permits at the lowest rate, which one call may reserve at once.

    # the fleet's rate relative to a model's limit: 1 is the whole limit
    min_factor: float = 0.02  #: However many 429s come, some requests are sent: they show when the limit rises.
    first_hold_s: float = 10  #: So long after a 429 the rate stays as it is: a minute's window needs time to empty.
    max_hold_s: float = 60  #: A limit that is found again and again is probed once a minute, not less often.
    growth_per_s: float = 1.01  #: After that the rate grows by a hundredth in the first second …
    growth_acceleration_s: float = 20  #: … and ever faster: from `min_factor` to 1 within 80 s.
    max_growth_steps: float = 1000  #: Keeps the power finite, however long nothing was asked.

    # limits that Mistral reports: requests and tokens in a window of a minute that slides
    minute_s: float = 60
    minute_margin_factor: float = 1.01  #: A minute's window forgives starts that are some tenths of a second late.
    shared_share: float = 0.02  #: Beyond this share of a limit, what others use is not an error of counting.
    rise_s: float = 10  #: How fast their use rises is read from so long ago, or up to twice as long …
    min_rise_s: float = 5  #: … but from no shorter time: one burst is no rate.
    others_kept_s: float = 80  #: What others used at most is left to them for long: a burst comes again.
    low_left_share: float = 0.03  #: Beside others, tokens wait a little where less than this is left.
    month_kept_s: float = 10  #: After so long without an answer, one request asks whether the month has tokens again.
    under_way_kept_s: int = 120  #: What a process said so long ago to have under way is forgotten: it was killed.
    reported_kept_s: int = 120  #: After so long without an answer, the limits count as unknown again.
    first_kept_s: int = 30  #: For so long a model's first request is waited for, if its outcome never comes …
    first_poll_s: float = 0.05  #: … and so often others ask whether it was answered.

    # a limit that was guessed, where none is set and none is reported
    guess_hold_s: float = 2  #: A guess may be far too low, for little had been sent by then: it grows soon …
    guess_doubling_s: float = 2  #: … and doubles every other second …
    max_guess_doublings: float = 100  #: … (keeps the power finite) …
    forgotten_factor: float = 4  #: … until it is dropped: four times the guess met no 429.
    min_guess_per_s: float = 1  #: A first 429 that came before anything was counted.

    # how many requests started lately: a ring of counters
    slot_s: float = 0.1
    ring_slots: int = 64  #: 6.4 s, so a slot of the second that is summed up is never overwritten by a later one.
    window_slots: int = 10  #: One second, by which Mistral's limits are read here.
    window_s: float = 1  #: The same in seconds.
    ring_kept_s: int = 10
    unreported_age_s: float = 0.1  #: Requests counted in a process, not yet in the ring, started about so long ago.

    # after a 429
    lone_refusal_s: float = 60  #: One 429 in so long may be chance: it causes a pause and no lower rate.
    same_pause_s: float = 1  #: Refusals of requests that were sent together end the pause within so long.
    short_pause_growth: float = 2  #: Pauses that prove too short last 2, 4 … s …
    max_short_pause_s: float = 8  #: … up to here, unless a 429 asks for more.
    shrink_factor: float = 0.85  #: Where nothing tells the limit it lies somewhere below.
    full_rate_share: float = 0.9  #: A fleet that sent this share of its rate was refused at that rate, not below.
    below_limit_factor: float = 0.95  #: A limit that was measured is approached from below.
    min_measured_share: float = 0.5  #: No measurement takes more than half of what was really sent …
    min_measured_s: float = 0.1  #: … where it was sent for at least so long …
    min_measured_requests: float = 2  #: … and was more than one request.
    same_limit_factor: float = 1.15  #: A 429 within so much of the last one's rate met the same limit again.

    # ranks
    rank_kept_s: float = 0.5  #: A rank counts for so long after its reservation: longer than two requests are apart.
    yield_spacing_factor: float = 5  #: While a lower rank asks, the others get a fifth of the permits.
    same_time_s: float = 0.001  #: Stored times this close are the same.

    # Redis keys
    state_kept_s: int = 3600
    time_kept_s: int = 60  #: A stored time is kept for so long after it has passed.
    pause_kept_ms: int = 1000

    def as_lua(self) -> str:
        """A Lua table `LAW` with these numbers."""
        entries = ", ".join(f"{field.name} = {getattr(self, field.name)!r}" for field in fields(self))
        return f"local LAW = {{{entries}}}\n"


LAW = ControlLaw()
