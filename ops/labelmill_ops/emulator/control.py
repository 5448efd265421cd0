"""The control endpoint, `/_control`: faults and counters of a running emulator, for this machine alone.

GET  /_control/faults       what is armed and how often each has struck
PUT  /_control/faults       {"faults": ["502:0.1", …], "seed": 0}: replaces all; an empty list ends them
GET  /_control/stats        counters; ?digests=true adds how often each text was billed
POST /_control/reset-stats  start counting anew
"""

from __future__ import annotations

from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from labelmill.core.addresses.loopback import is_loopback
from labelmill_ops.emulator.fault_kinds import UnknownFaultError, parse_fault
from labelmill_ops.emulator.injection import PLAN
from labelmill_ops.emulator.replies import RefusedError, json_body, json_reply
from labelmill_ops.emulator.stats import STATS

CONTROL_PATHS = "/_control/"


def control_routes() -> list[web.RouteDef]:
    """Return the routes of the control endpoint."""
    return [
        web.get("/_control/faults", _show_faults),
        web.put("/_control/faults", _arm_faults),
        web.get("/_control/stats", _show_stats),
        web.post("/_control/reset-stats", _reset_stats),
    ]


@web.middleware
async def control_from_loopback(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse the control endpoint to other machines."""
    if request.path.startswith(CONTROL_PATHS) and not is_loopback(request.remote):
        raise RefusedError(403, {"detail": "the control endpoint answers to this machine alone"})
    return await handler(request)


async def _show_faults(request: web.Request) -> web.Response:
    return json_reply(request.app[PLAN].as_json())


async def _arm_faults(request: web.Request) -> web.Response:
    body = await json_body(request)
    written, seed = body.get("faults", []), body.get("seed", 0)
    if not isinstance(written, list) or not all(isinstance(one, str) for one in written) or not isinstance(seed, int):
        raise _wrong('say {"faults": ["502:0.1"], "seed": 0}')
    try:
        request.app[PLAN].arm([parse_fault(one) for one in written], seed)
    except UnknownFaultError as error:
        raise _wrong(str(error)) from error
    return json_reply(request.app[PLAN].as_json())


def _wrong(what: str) -> RefusedError:
    return RefusedError(422, {"detail": what})


async def _show_stats(request: web.Request) -> web.Response:
    counted: dict[str, Any] = request.app[STATS].snapshot()
    if request.query.get("digests") in {"true", "1"}:
        counted |= request.app[STATS].digests()
    return json_reply(counted)


async def _reset_stats(request: web.Request) -> web.Response:
    request.app[STATS].reset()
    return json_reply(request.app[STATS].snapshot())
