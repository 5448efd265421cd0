"""Mistral on a bad day: refusals, resets, hangs, slow bodies, and answers that are not what they should be."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web
from rig import PER_REQUEST, Rig
from stand_in import Dropped, Trouble

from faults import Fault, Heal

_CLASSIFY = ("/v1/classifications",)
_CONTROL = ("/v1/files", "/v1/fine_tuning")


def _with(trouble: Callable[[float], Trouble]) -> Callable[[Rig, random.Random], Heal]:
    def begin(rig: Rig, rng: random.Random) -> Heal:
        added = trouble(rng.choice((0.2, 0.6, 1.0)))
        rig.mistral.troubles.append(added)

        def end() -> None:
            if added in rig.mistral.troubles:
                rig.mistral.troubles.remove(added)

        return end

    return begin


def _says(status: int, body: bytes, headers: dict[str, str] | None = None) -> Callable[[web.Request], web.Response]:
    return lambda _: web.Response(status=status, body=body, headers=headers)


def _drop(request: web.Request, body: bytes = b"") -> web.Response:
    del request, body
    raise Dropped


async def _hang(request: web.Request, body: bytes = b"") -> web.Response:
    del request, body
    await asyncio.sleep(12)  # longer than a request may take
    raise Dropped


async def _trickle(request: web.Request, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = len(body)
    await response.prepare(request)
    step = 1 + len(body) // 100
    for start in range(0, len(body), step):
        await response.write(body[start : start + step])
        await asyncio.sleep(0.12)
    return response


def _cut_short(request: web.Request, body: bytes) -> web.Response:
    del request
    return web.Response(body=body[: len(body) // 2], content_type="application/json")


def _page(request: web.Request, body: bytes) -> web.Response:
    del request, body
    return web.Response(body=b"<html><body>Bad gateway</body></html>", content_type="text/html")


def _results(change: Callable[[list[Any]], Any]) -> Callable[[web.Request, bytes], web.Response]:
    def spoil(request: web.Request, body: bytes) -> web.Response:
        del request
        document = orjson.loads(body)
        document["results"] = change(document["results"])
        return web.Response(body=orjson.dumps(document), content_type="application/json")

    return spoil


def _not_a_number(request: web.Request, body: bytes) -> web.Response:
    del request
    return web.Response(body=body.replace(b"0.85", b"NaN", 1), content_type="application/json")


def _null_score(results: list[Any]) -> list[Any]:
    results[0]["intent"]["scores"]["alpha"] = None
    return results


def _other_label(results: list[Any]) -> list[Any]:
    results[-1]["intent"]["scores"]["omega"] = results[-1]["intent"]["scores"].pop("alpha")
    return results


def _refuse(rig: Rig, rng: random.Random) -> Heal:
    del rng
    rig.mistral.counts.spoilt += rig.mistral.counts.in_flight * PER_REQUEST  # what is under way is cut off
    rig.mistral.refuse()
    return rig.mistral.accept


def _before(name: str, act: Any, paths: tuple[str, ...] = ("/v1/",)) -> Fault:
    return Fault(f"Mistral: {name}", _with(lambda share: Trouble(name, share, before=act, paths=paths)), (0.5, 5.0))


def _after(name: str, act: Any, paths: tuple[str, ...] = _CLASSIFY) -> Fault:
    return Fault(f"Mistral: {name}", _with(lambda share: Trouble(name, share, after=act, paths=paths)), (0.5, 3.0))


FAULTS = (
    _before("429 with Retry-After", _says(429, b'{"message":"slow down"}', {"Retry-After": "1"})),
    _before("429 without", _says(429, b'{"message":"slow down"}')),
    _before("500", _says(500, b'{"message":"internal"}')),
    _before("502", _says(502, b"<html>bad gateway</html>")),
    _before("503", _says(503, b'{"message":"overloaded"}', {"Retry-After": "1"})),
    _before("resets connections", _drop),
    _before("hangs", _hang, _CLASSIFY),
    Fault("Mistral: refuses connections", _refuse, (0.5, 5.0)),
    _after("answers are lost", _drop, ("/v1/",)),
    _after("lost answers to what makes something", _drop, _CONTROL),
    _after("slow bodies", _trickle),
    _after("truncated JSON", _cut_short),
    _after("HTML with 200", _page),
    _after("too few results", _results(lambda results: results[:-1])),
    _after("too many results", _results(lambda results: [*results, results[0]])),
    _after("no results", _results(lambda _: None)),
    _after("NaN", _not_a_number),
    _after("a score that is null", _results(_null_score)),
    _after("an unknown label", _results(_other_label)),
)
