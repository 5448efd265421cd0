"""The emulator's application, and running it in the foreground."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from labelmill_ops.emulator.auth import bearer_auth
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_ops.emulator.faults import latency, rate_limit
from labelmill_ops.emulator.jobs import JOBS, JobRunner
from labelmill_ops.emulator.replies import refusals_as_json
from labelmill_ops.emulator.routes_files import file_routes
from labelmill_ops.emulator.routes_inference import inference_routes
from labelmill_ops.emulator.routes_jobs import job_routes
from labelmill_ops.emulator.routes_models import model_routes
from labelmill_ops.emulator.stats import STATS, Stats, count_requests, reset_stats, show_stats
from labelmill_ops.emulator.store import STORE, Store

_SHUTDOWN_S = 2.0


def create_app(config: EmulatorConfig) -> web.Application:
    """Return an application that emulates Mistral as configured; nothing runs until it is served."""
    executor = ThreadPoolExecutor(max_workers=config.inference_threads, thread_name_prefix="inference")
    # From the outside in: everything is counted, a wrong key costs no rate, a refused request costs no latency.
    middlewares = [count_requests, refusals_as_json, bearer_auth(config), rate_limit(config), latency(config)]
    app = web.Application(middlewares=middlewares, client_max_size=config.max_body_bytes)
    app[STATS] = Stats()
    app[STORE] = Store(config.state_dir)
    app[JOBS] = JobRunner(config, app[STORE])
    app.add_routes([*file_routes(config), *job_routes(), *model_routes(), *inference_routes(config, executor)])
    app.add_routes([web.get("/emulator/stats", show_stats), web.post("/emulator/reset-stats", reset_stats)])

    async def lifetime(app: web.Application) -> AsyncIterator[None]:
        app[JOBS].resume()
        yield
        await app[JOBS].close()
        executor.shutdown(cancel_futures=True)

    app.cleanup_ctx.append(lifetime)
    return app


async def listen(app: web.Application, config: EmulatorConfig) -> tuple[web.AppRunner, str]:
    """Serve app on the running loop. Returns its runner, to be cleaned up, and its URL. Raises OSError."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, config.host, config.port, backlog=1024).start()
    except OSError:
        await runner.cleanup()
        raise
    host, port = runner.addresses[0][:2]
    return runner, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(config: EmulatorConfig) -> None:
    """Serve until SIGTERM or SIGINT, after saying on stderr where. Raises OSError if the port is taken."""
    asyncio.run(_serve(config))


async def _serve(config: EmulatorConfig) -> None:
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    runner, url = await listen(create_app(config), config)
    try:
        sys.stderr.write(
            f"Mistral emulator at {url} (not Mistral: small scikit-learn models, made-up prices; "
            "its accuracy says nothing about Mistral's)\n"
        )
        sys.stderr.flush()
        await stop.wait()
    finally:
        await runner.cleanup()
