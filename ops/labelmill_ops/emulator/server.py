"""The emulator's application, and running it in the foreground."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from labelmill_ops.emulator.answering import ANSWERERS, realtime_routes
from labelmill_ops.emulator.auth import bearer_auth
from labelmill_ops.emulator.batches import BATCHES, BatchRunner
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_ops.emulator.control import control_from_loopback, control_routes
from labelmill_ops.emulator.fault_kinds import FaultPlan
from labelmill_ops.emulator.injection import PLAN, inject_faults
from labelmill_ops.emulator.jobs import JOBS, JobRunner
from labelmill_ops.emulator.listener import LISTENER, Listener
from labelmill_ops.emulator.model_limits import MODEL_WINDOWS, ModelWindows
from labelmill_ops.emulator.moderation import moderation_answerers
from labelmill_ops.emulator.replies import refusals_as_json
from labelmill_ops.emulator.routes_batches import batch_routes
from labelmill_ops.emulator.routes_chat import chat_answerers
from labelmill_ops.emulator.routes_files import file_routes
from labelmill_ops.emulator.routes_inference import inference_answerers
from labelmill_ops.emulator.routes_jobs import job_routes
from labelmill_ops.emulator.routes_models import DEPRECATED, model_routes
from labelmill_ops.emulator.stats import STATS, Stats, count_requests
from labelmill_ops.emulator.store import STORE, Store
from labelmill_ops.emulator.throttling import latency, rate_limit

_SHUTDOWN_S = 2.0


def create_app(config: EmulatorConfig) -> web.Application:
    """Return an application that emulates Mistral as configured; nothing runs until it is served."""
    executor = ThreadPoolExecutor(max_workers=config.inference_threads, thread_name_prefix="inference")
    middlewares = [  # from the outside in
        count_requests,  # everything
        refusals_as_json,
        control_from_loopback,
        bearer_auth(config),  # a wrong key costs no rate
        rate_limit(config),  # a refused request costs no latency
        latency(config),
        inject_faults,
    ]
    app = web.Application(middlewares=middlewares, client_max_size=config.max_body_bytes)
    app[STATS] = Stats()
    app[STORE] = Store(config.state_dir)
    app[PLAN] = FaultPlan(config.faults, config.fault_seed)
    app[DEPRECATED] = config.deprecated
    app[MODEL_WINDOWS] = ModelWindows(config.model_limits)
    app[JOBS] = JobRunner(config, app[STORE], app[PLAN])
    answerers = app[ANSWERERS] = {
        **inference_answerers(config, executor, app[STORE]),
        **chat_answerers(executor),
        **moderation_answerers(config),
    }
    app[BATCHES] = BatchRunner(config, app[STORE], app[PLAN], app[STATS], answerers)
    app.add_routes(
        [
            *file_routes(config),
            *job_routes(),
            *batch_routes(config),
            *model_routes(),
            *realtime_routes(app[ANSWERERS]),
        ]
    )
    app.add_routes(control_routes())

    async def lifetime(app: web.Application) -> AsyncIterator[None]:
        app[JOBS].resume()
        app[BATCHES].resume()
        yield
        app[LISTENER].close()
        await app[JOBS].close()
        await app[BATCHES].close()
        executor.shutdown(cancel_futures=True)

    app.cleanup_ctx.append(lifetime)
    return app


async def listen(app: web.Application, config: EmulatorConfig) -> tuple[web.AppRunner, str]:
    """Serve app on the running loop. Returns its runner, to be cleaned up, and its URL. Raises OSError."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
    listener = app[LISTENER] = Listener(runner, config.host, config.port)
    await runner.setup()
    try:
        await listener.open()
    except OSError:
        await runner.cleanup()
        raise
    host, port = runner.addresses[0][:2]
    return runner, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(config: EmulatorConfig, on_listening: Callable[[str], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT, after saying on stderr where, and telling `on_listening`. Raises OSError if the
    port is taken."""
    asyncio.run(_serve(config, on_listening))


async def _serve(config: EmulatorConfig, on_listening: Callable[[str], None]) -> None:
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
        on_listening(url)
        await stop.wait()
    finally:
        await runner.cleanup()
