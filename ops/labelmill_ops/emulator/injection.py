"""Faults at work: one middleware that lets the armed ones strike."""

from __future__ import annotations

import asyncio
import math

from aiohttp import web
from aiohttp.typedefs import Handler

from labelmill_ops.emulator.auth import MISTRAL_PATHS
from labelmill_ops.emulator.fault_kinds import CALLS, Fault, FaultPlan, Stage
from labelmill_ops.emulator.listener import LISTENER, reset
from labelmill_ops.emulator.replies import RATE_LIMITED, refusal
from labelmill_ops.emulator.spoiling import spoil_content
from labelmill_ops.emulator.stats import STATS, billed_texts

PLAN = web.AppKey("fault plan", FaultPlan)

_PAGE = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center><hr>cloudfront</body></html>"
_BAD_GATEWAY = _PAGE.format("502 Bad Gateway").encode()
_DRIPS = 100
_CHECK_EVERY_S = 0.1


def call_of(request: web.Request) -> str:
    """The name of the call that a request is."""
    resource = request.match_info.route.resource
    return CALLS.get((request.method, resource.canonical if resource else ""), "other")


@web.middleware
async def inject_faults(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let at most one fault strike the request."""
    if not request.path.startswith(MISTRAL_PATHS):
        return await handler(request)
    plan = request.app[PLAN]
    fault = _storm(plan) or plan.draw(call_of(request))
    if fault is None:
        return await handler(request)
    request.app[STATS].faults[fault.kind] += 1
    if fault.stage is Stage.BEFORE:
        return await _strike(request, plan, fault)
    response = await handler(request)
    if not isinstance(response, web.Response) or not isinstance(response.body, bytes):
        return response
    request.app[STATS].spoil(billed_texts(request))
    return await _spoil(request, fault, response, response.body)


def _storm(plan: FaultPlan) -> Fault | None:
    if plan.storm is None:
        return None
    fault, until = plan.storm
    return fault if asyncio.get_running_loop().time() < until else None


async def _strike(request: web.Request, plan: FaultPlan, fault: Fault) -> web.StreamResponse:
    """A fault that comes before anything is carried out."""
    if fault.kind in {"429-storm", "outage"} and _storm(plan) is None:
        plan.storm = fault, asyncio.get_running_loop().time() + fault.seconds
    match fault.kind:
        case "410":
            raise refusal(410, "This endpoint was retired", ("gone", "1900"))
        case "429" | "429-storm":
            raise refusal(429, "Requests rate limit exceeded", RATE_LIMITED, _retry_after(fault))
        case "402":
            raise refusal(402, "Batch inference needs billing to be enabled", ("payment_required", "1200"))
        case "500":
            raise refusal(500, "Internal server error", ("internal_server_error", "1000"))
        case "502":
            return _bad_gateway()
        case "503" | "outage":
            raise refusal(503, "Service unavailable", ("service_unavailable", "1000"), _retry_after(fault))
        case "refused":
            await request.app[LISTENER].close_for(fault.seconds)
        case "hang":
            await _wait_while_connected(request, fault.seconds)
    return _cut(request)


def _retry_after(fault: Fault) -> dict[str, str]:
    if fault.kind not in {"429", "503"} or fault.parameter in (None, "none"):
        return {}
    return {"Retry-After": str(math.ceil(fault.seconds))}


async def _spoil(request: web.Request, fault: Fault, response: web.Response, body: bytes) -> web.StreamResponse:
    """A fault that comes after the request was carried out."""
    how = fault.parameter if fault.kind == "lost" else fault.kind
    match how:
        case "502":
            return _bad_gateway()
        case "hang":
            await _wait_while_connected(request, 600)
            return _cut(request)
        case "reset":
            return _cut(request) if fault.kind == "lost" else await _answer_half(request, response, body)
        case "slow":
            return await _drip(request, response, body, fault.seconds)
        case "truncated":
            return _replaced(response, body[: len(body) // 2])
        case "malformed":
            return _replaced(response, b'{"id": "' + body[:20].replace(b'"', b"") + b'", "results": [{]}')
        case "html":
            return web.Response(body=_PAGE.format("Just a moment...").encode(), content_type="text/html")
    if response.status != 200:
        return response
    return _replaced(response, spoil_content(fault.kind, body))


def _bad_gateway() -> web.Response:
    return web.Response(status=502, body=_BAD_GATEWAY, content_type="text/html")


def _replaced(response: web.Response, body: bytes) -> web.Response:
    return web.Response(status=response.status, body=body, content_type=response.content_type)


def _cut(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        reset(request.transport)
    return web.Response(status=500)  # it is never sent


def _like(response: web.Response, body: bytes) -> web.StreamResponse:
    headers = {
        "Content-Type": response.headers.get("Content-Type", "application/json"),
        "Content-Length": str(len(body)),
    }
    return web.StreamResponse(status=response.status, headers=headers)


async def _answer_half(request: web.Request, response: web.Response, body: bytes) -> web.StreamResponse:
    answer = _like(response, body)
    await answer.prepare(request)
    await answer.write(body[: max(1, len(body) // 2)])
    await asyncio.sleep(0.02)  # a reset throws away what the client has not read yet
    if request.transport is not None:
        reset(request.transport)
    return answer


async def _drip(request: web.Request, response: web.Response, body: bytes, seconds: float) -> web.StreamResponse:
    answer = _like(response, body)
    await answer.prepare(request)
    size = max(1, math.ceil(len(body) / _DRIPS))
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    for piece in pieces:
        await asyncio.sleep(seconds / len(pieces))
        await answer.write(piece)
    return answer


async def _wait_while_connected(request: web.Request, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    # a transport that closes cannot be awaited
    while loop.time() < until and request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(_CHECK_EVERY_S)
