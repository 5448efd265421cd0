"""What clients asked for, counted: `GET /emulator/stats` and `POST /emulator/reset-stats`."""

from collections import Counter
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from labelmill_ops.emulator.replies import json_reply


class Stats:
    """Counters since the start or the last reset. Requests to `/emulator` itself are not counted."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.reset()

    def reset(self) -> None:
        """Forget everything counted so far."""
        self.requests: Counter[str] = Counter()  #: by path pattern, refused ones too
        self.calls: Counter[str] = Counter()  #: by method and path pattern
        self.statuses: Counter[str] = Counter()  #: by HTTP status
        self.texts = 0  #: classified or embedded
        self.jobs_created = 0
        self.jobs_started = 0
        self.files = 0  #: uploaded
        self.peak_in_flight = 0
        self.in_flight = 0

    def snapshot(self) -> dict[str, Any]:
        """Return all counters as JSON."""
        return {
            "requests": dict(self.requests),
            "calls": dict(self.calls),
            "statuses": dict(self.statuses),
            "texts": self.texts,
            "jobs_created": self.jobs_created,
            "jobs_started": self.jobs_started,
            "files": self.files,
            "peak_in_flight": self.peak_in_flight,
        }


STATS = web.AppKey("stats", Stats)


@web.middleware
async def count_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the request under its path pattern; outermost, so refused requests count too."""
    if request.path.startswith("/emulator/"):
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
        # A reset may have come in between.
        stats.in_flight = max(0, stats.in_flight - 1)
    stats.statuses[str(response.status)] += 1
    return response


async def show_stats(request: web.Request) -> web.Response:
    """`GET /emulator/stats`."""
    return json_reply(request.app[STATS].snapshot())


async def reset_stats(request: web.Request) -> web.Response:
    """`POST /emulator/reset-stats`."""
    request.app[STATS].reset()
    return json_reply(request.app[STATS].snapshot())
