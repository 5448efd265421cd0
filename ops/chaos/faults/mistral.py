"""Mistral on a bad day: refusals, resets, hangs, slow bodies, and answers that are not what they should be."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web
from rig import Rig
from stand_in import PAID, Dropped, Trouble

from faults import Heal, InjectedFault

_CONTROL = ("/v1/files", "/v1/fine_tuning", "/v1/batch")

Entries = list[Any]


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


def _changed(change: Callable[[Entries], Any]) -> Callable[[web.Request, bytes], web.Response]:
    """The list that is the heart of every answer becomes another one."""

    def spoil(request: web.Request, body: bytes) -> web.Response:
        document = orjson.loads(body)
        name = {PAID[0]: "results", PAID[1]: "data", PAID[2]: "choices"}[request.path]
        document[name] = change(document[name])
        return web.Response(body=orjson.dumps(document), content_type="application/json")

    return spoil


def _not_a_number(request: web.Request, body: bytes) -> web.Response:
    del request
    for number in (b"0.85", b"20.0", b"\\"):  # a score, a number of a vector, the first label of a chat
        if number in body:
            return web.Response(body=body.replace(number, b"NaN", 1), content_type="application/json")
    return web.Response(body=b"NaN", content_type="application/json")


def _null(entries: Entries) -> Entries:
    first = entries[0]
    if "message" in first:
        first["message"]["content"] = None
    elif "embedding" in first:
        first["embedding"][17] = None
    else:
        first["intent"]["scores"]["alpha"] = None
    return entries


def _unknown(entries: Entries) -> Entries:
    last = entries[-1]
    if "message" in last:
        said = orjson.loads(last["message"]["content"])
        last["message"]["content"] = orjson.dumps(said | {"intent": "omega"}).decode()
    elif "embedding" in last:
        last["embedding"].append(1.0)  # one dimension more than the others
    else:
        last["intent"]["scores"]["omega"] = last["intent"]["scores"].pop("alpha")
    return entries


def _more(entries: Entries) -> Entries:
    if "message" in entries[0]:  # of several choices the first is the answer
        entries[0]["finish_reason"] = "length"
    return [*entries, entries[0]]


def _refuse(rig: Rig, rng: random.Random) -> Heal:
    del rng
    rig.mistral.refuse()
    return rig.mistral.accept


def _before(name: str, act: Any, paths: tuple[str, ...] = ("/v1/",)) -> InjectedFault:
    return InjectedFault(
        f"Mistral: {name}", _with(lambda share: Trouble(name, share, before=act, paths=paths)), (0.5, 5.0)
    )


def _after(name: str, act: Any, paths: tuple[str, ...] = PAID) -> InjectedFault:
    return InjectedFault(
        f"Mistral: {name}", _with(lambda share: Trouble(name, share, after=act, paths=paths)), (0.5, 3.0)
    )


FAULTS = (
    _before("429 with Retry-After", _says(429, b'{"message":"slow down"}', {"Retry-After": "1"})),
    _before("429 without", _says(429, b'{"message":"slow down"}')),
    _before("500", _says(500, b'{"message":"internal"}')),
    _before("502", _says(502, b"<html>bad gateway</html>")),
    _before("503", _says(503, b'{"message":"overloaded"}', {"Retry-After": "1"})),
    _before("resets connections", _drop),
    _before("hangs", _hang, PAID),
    InjectedFault("Mistral: refuses connections", _refuse, (0.5, 5.0)),
    _after("answers are lost", _drop, ("/v1/",)),
    _after("lost answers to what makes something", _drop, _CONTROL),
    _after("slow bodies", _trickle),
    _after("truncated JSON", _cut_short),
    _after("HTML with 200", _page),
    _after("too few results", _changed(lambda entries: entries[:-1])),
    _after("too many results", _changed(_more)),
    _after("no results", _changed(lambda _: None)),
    _after("NaN", _not_a_number),
    _after("a score that is null", _changed(_null)),
    _after("an unknown label", _changed(_unknown)),
)
