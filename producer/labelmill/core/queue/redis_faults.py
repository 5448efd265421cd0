"""Why Redis refuses messages, with a remedy: it can answer and still refuse to write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from redis import exceptions


class Refusal(NamedTuple):
    """`reason`: continues the sentence "Redis takes no messages: ". `remedy`: what an operator should do."""

    reason: str
    remedy: str


_READ_ONLY = Refusal("it is a read-only replica (READONLY)", "name the primary Redis in LABELMILL_BROKER_URL")
_FULL = Refusal("its memory is full (OOM)", "raise maxmemory in Redis, or see what else lies in it")
_LOADING = Refusal("it is still loading its data (LOADING)", "wait until Redis has loaded its data")
_PASSWORD = Refusal("it refuses the password or the user", "correct LABELMILL_BROKER_URL")
_CANNOT_SAVE = Refusal("it cannot save its data to disk (MISCONF)", "make room on Redis' disk, or look into its log")
_BY_CLASS: tuple[tuple[type[exceptions.RedisError], Refusal], ...] = (
    (exceptions.ReadOnlyError, _READ_ONLY),
    (exceptions.OutOfMemoryError, _FULL),
    (exceptions.BusyLoadingError, _LOADING),
    (exceptions.AuthenticationWrongNumberOfArgsError, _PASSWORD),
    (exceptions.AuthenticationError, _PASSWORD),
)
_BY_WORD = {
    "READONLY": _READ_ONLY,
    "OOM": _FULL,
    "LOADING": _LOADING,
    "MISCONF": _CANNOT_SAVE,
    "NOAUTH": _PASSWORD,
    "WRONGPASS": _PASSWORD,
}


def refusal_in(error: BaseException) -> Refusal | None:
    """Why Redis refused, from an error or one of its causes; None: it did not answer at all."""
    for cause in _chain(error):
        for kind, refusal in _BY_CLASS:
            if isinstance(cause, kind):
                return refusal
        words = " ".join(str(cause).split())
        if isinstance(cause, exceptions.NoPermissionError):
            return Refusal(
                f"its user has no right to it (NOPERM: {words[:160]})", "give the user that right: ACL SETUSER"
            )
        if isinstance(cause, exceptions.ResponseError):
            return _BY_WORD.get(words.partition(" ")[0], Refusal(words[:160], "look into Redis' own log"))
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
