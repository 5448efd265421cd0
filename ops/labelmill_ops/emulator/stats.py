"""What clients asked for, counted; `control` shows it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

_CONTROL = "/_control/"
REALTIME, BATCH = MODES = ("realtime", "batch")
_BILLED: web.RequestKey[Sequence[str]] = web.RequestKey("billed texts", Sequence)


def digest_of(text: str) -> str:
    """The name under which a text is counted: 16 hex digits of SHA-256 over its UTF-8 bytes."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Stats:
    """Counters since the start or the last reset. Requests to the control endpoint are not counted."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything counted so far."""
        self.requests: Counter[str] = Counter()  #: by path pattern, refused ones too
        self.calls: Counter[str] = Counter()  #: by method and path pattern
        self.statuses: Counter[str] = Counter()  #: by HTTP status
        self.faults: Counter[str] = Counter()  #: that struck, by kind
        self.texts = 0  #: classified, embedded or answered: what Mistral would bill
        self.spoiled_texts = 0  #: of these, billed for answers that a fault kept from arriving whole
        self.by_mode = {mode: Counter[str]() for mode in MODES}
        self.jobs_created = 0
        self.jobs_started = 0
        self.batches_created = 0
        self.files = 0  #: uploaded
        self.peak_in_flight = self.in_flight
        self._billed: Counter[str] = Counter()
        self._spoiled: Counter[str] = Counter()

    def bill_realtime(self, request: web.Request, texts: Sequence[str], tokens: int) -> None:
        """Count texts as billed to this request."""
        self.bill(REALTIME, texts, tokens)
        request[_BILLED] = texts

    def bill(self, mode: str, texts: Sequence[str], tokens: int) -> None:
        """Count the texts and tokens of one request as billed."""
        self.texts += len(texts)
        self._billed.update(map(digest_of, texts))
        self.by_mode[mode].update(requests=1, texts=len(texts), tokens=tokens)

    def spoil(self, texts: Sequence[str]) -> None:
        """Count texts that were billed and whose answer a fault spoils."""
        self.spoiled_texts += len(texts)
        self._spoiled.update(map(digest_of, texts))

    def snapshot(self) -> dict[str, Any]:
        """Return all counters as JSON."""
        return {
            "requests": dict(self.requests),
            "calls": dict(self.calls),
            "statuses": dict(self.statuses),
            "faults": dict(self.faults),
            "texts": self.texts,
            "distinct_texts": len(self._billed),
            "billed_twice": _beyond_first(self._billed.values()),
            "spoiled_texts": self.spoiled_texts,
            "by_mode": {
                mode: {what: counted[what] for what in ("requests", "texts", "tokens")}
                for mode, counted in self.by_mode.items()
            },
            "jobs_created": self.jobs_created,
            "jobs_started": self.jobs_started,
            "batches_created": self.batches_created,
            "files": self.files,
            "peak_in_flight": self.peak_in_flight,
        }

    def digests(self) -> dict[str, dict[str, int]]:
        """Return how often each text was billed, and how often for an answer that was spoiled."""
        return {"billed": dict(self._billed), "spoiled": dict(self._spoiled)}


def _beyond_first(counts: Iterable[int]) -> int:
    return sum(count - 1 for count in counts)


STATS = web.AppKey("stats", Stats)


def billed_texts(request: web.Request) -> Sequence[str]:
    """The texts that a request was billed for."""
    texts: Sequence[str] = request.get(_BILLED, ())
    return texts


@web.middleware
async def count_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the request under its path pattern; outermost, so refused requests count too."""
    if request.path.startswith(_CONTROL):
        return await handler(request)
    stats = request.app[STATS]
    resource = request.match_info.route.resource
    path = resource.canonical if resource else "unknown"
    stats.requests[path] += 1
    stats.calls[f"{request.method} {path}"] += 1
    stats.in_flight += 1
    stats.peak_in_flight = max(stats.peak_in_flight, stats.in_flight)
    try:
        response = await handler(request)
    finally:
        stats.in_flight -= 1
    stats.statuses[str(response.status)] += 1
    return response
