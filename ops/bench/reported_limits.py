"""How much of a limit that Mistral reports in its headers is used, and how many requests meet a 429.

    python ops/bench/reported_limits.py [--limit 1200] [--seconds 90] [--processes 1 2 4] [--beside 0.5] [--fleets 2]

A stand-in enforces requests and tokens in a sliding minute and tells them in the headers of each answer. Processes
share the limiter's state in a Redis and send as fast as it lets them; nothing is set. With `--beside` another program
sends this share of the limit on the same key, half of it evenly and half in bursts. Prints one line of JSON for each
run: `used` is what was answered over what the other program left, between the first and the last request. `--fleets 2`:
two installations on the key, which share no Redis; the second begins 20 s later.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from aiohttp import web

from labelmill.contracts.errors import RateLimited
from labelmill.core.settings import Settings
from labelmill_ops.embedded_redis import EmbeddedRedis
from labelmill_ops.emulator.limit_option import ModelLimit
from labelmill_ops.emulator.model_limits import ModelWindows
from labelmill_ops.emulator.replies import RefusedError
from labelmill_worker.mistral.ratelimit.limiter import FleetLimiter
from labelmill_worker.mistral.ratelimit.model_limiter import NoPermitInTime
from labelmill_worker.mistral.realtime import RealtimeInference
from labelmill_worker.ports.inference import Call, Endpoint

MODEL, TOKENS = "some-model", 100
LATENCY_S = 0.2
SENDERS = 16  #: In each process.
BURSTS_EVERY_S = 10.0
NEXT_FLEET_S = 20.0


class Server:
    """Answers from a thread of its own."""

    def __init__(self, limit: ModelLimit) -> None:
        self.windows = ModelWindows({MODEL: limit})
        self.answered: list[float] = []
        self.of_fleets: Counter[str] = Counter()
        self.refused = self.others = self.others_refused = 0
        self.loop = asyncio.new_event_loop()
        self.url = ""
        self._ready = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()
        self._ready.wait(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        app = web.Application()
        app.router.add_post(Endpoint.CLASSIFICATIONS, self._answer)
        runner = web.AppRunner(app)
        self.loop.run_until_complete(runner.setup())
        self.loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        self.loop.run_forever()

    async def _answer(self, request: web.Request) -> web.Response:
        await request.read()
        try:
            self.windows.admit(MODEL)
        except RefusedError as error:
            self.refused += 1
            return web.json_response(error.body, status=429, headers=error.headers)
        self.answered.append(time.monotonic())
        self.of_fleets[request.headers["Authorization"]] += 1
        await asyncio.sleep(LATENCY_S)
        body = {"results": [], "usage": {"total_tokens": TOKENS}}
        return web.json_response(body, headers=self.windows.answered(MODEL, TOKENS))

    async def other_program(self, per_s: float) -> None:
        """Half of the rate evenly, half in bursts. What is refused is not sent again."""
        began, steps = time.monotonic(), 0
        while True:
            steps += 1
            burst = int(per_s / 2 * BURSTS_EVERY_S) if steps % max(1, int(per_s / 2 * BURSTS_EVERY_S)) == 0 else 0
            for _ in range(1 + burst):
                try:
                    self.windows.admit(MODEL)
                    self.windows.answered(MODEL, TOKENS)
                    self.others += 1
                except RefusedError:
                    self.others_refused += 1
            await asyncio.sleep(max(0.0, began + steps / (per_s / 2) - time.monotonic()))


def send_for(url: str, redis_url: str, seconds: float, after_s: float, key: str) -> None:
    """What one process does."""
    time.sleep(after_s)
    settings = Settings(mistral_url=url, broker_url=redis_url, MISTRAL_API_KEY=key, _env_file=None)  # type: ignore[call-arg]
    asyncio.run(_send_for(settings, time.monotonic() + seconds))


async def _send_for(settings: Settings, until: float) -> None:
    fleet, inference = FleetLimiter.from_settings(settings), RealtimeInference.from_settings(settings)
    limiter = fleet.of(MODEL)
    call = Call(Endpoint.CLASSIFICATIONS, {"model": MODEL, "input": ["text"]})
    asking = asyncio.Lock()

    async def send() -> None:
        while time.monotonic() < until:
            try:
                async with asking:  # as the admission of a worker asks
                    await limiter.wait_for_permit(TOKENS, 5)
            except NoPermitInTime as refusal:
                await asyncio.sleep(min(refusal.wait_s, 5))
                continue
            began = time.monotonic()
            try:
                reply = await inference.send(call)
                limiter.note_answer(reply.limits, reply.tokens, TOKENS, time.monotonic() - began)
                await limiter.settle(TOKENS, reply.tokens)
            except RateLimited as error:
                await limiter.pause(error.retry_after_s or 1, time.monotonic() - began, error.limits, TOKENS)

    await asyncio.gather(*(send() for _ in range(SENDERS)))
    await inference.close()
    await fleet.close()


def measure(limit: ModelLimit, processes: int, seconds: float, beside: float, fleets: int) -> dict[str, Any]:
    """One run."""
    server = Server(limit)
    per_s = min((limit.requests_per_minute or 0), (limit.tokens_per_minute or 1e9) / TOKENS) / 60
    if beside:
        asyncio.run_coroutine_threadsafe(server.other_program(per_s * beside), server.loop)
        time.sleep(5)
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        started = []
        for number in range(fleets):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            redis = stack.enter_context(EmbeddedRedis(Path(folder)))
            after_s = number * NEXT_FLEET_S
            given = (server.url, redis.url, seconds - after_s, after_s, f"fleet-{number}")
            started += [context.Process(target=send_for, args=given) for _ in range(processes)]
        for process in started:
            process.start()
        for process in started:
            process.join()
    answered = server.answered
    took_s = answered[-1] - answered[0]
    left = per_s * took_s * (1 - beside)
    return {
        "processes": processes,
        "beside": beside,
        "used": round((len(answered) - 1) / left, 3),
        "answered": len(answered),
        "of_fleets": [server.of_fleets[key] for key in sorted(server.of_fleets)],
        "refused": server.refused,
        "others_refused": server.others_refused,
        "seconds": round(took_s, 1),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=1200, help="requests a minute")
    parser.add_argument("--tokens", type=int, help="tokens a minute; a request takes 100")
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--beside", type=float, default=0.0)
    parser.add_argument("--fleets", type=int, default=1)
    given = parser.parse_args()
    for processes in given.processes:
        result = measure(ModelLimit(given.limit, given.tokens), processes, given.seconds, given.beside, given.fleets)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
