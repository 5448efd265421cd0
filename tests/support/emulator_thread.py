"""An emulator in a background thread."""

import asyncio
import threading
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_ops.emulator.server import create_app, listen
from labelmill_ops.emulator.stats import STATS

_START_TIMEOUT_S = 30.0


class EmulatorThread:
    """Serves an emulator while its `with` block runs.

    With no configuration it takes a free port and the shortest stages.
    """

    def __init__(self, config: EmulatorConfig | None = None) -> None:
        """Keep the configuration; nothing runs yet."""
        self._config = config or EmulatorConfig(port=0, validate_s=0, train_s=0)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name="mistral-emulator", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._app: web.Application | None = None
        self._failure: BaseException | None = None
        self.url = ""  #: where it listens, such as http://127.0.0.1:40123

    def stats(self) -> dict[str, Any]:
        """Return the counters of `GET /emulator/stats`."""
        if self._app is None:
            message = "the emulator is not running"
            raise RuntimeError(message)
        return self._app[STATS].snapshot()

    def __enter__(self) -> Self:
        """Start, and wait until it listens. Raises what stopped it from starting."""
        self._thread.start()
        if not self._ready.wait(_START_TIMEOUT_S):
            message = f"the emulator did not start within {_START_TIMEOUT_S} s"
            raise TimeoutError(message)
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, and wait until it has."""
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._app = create_app(self._config)
        runner, self.url = await listen(self._app, self._config)
        self._ready.set()
        try:
            await self._stop.wait()
        finally:
            await runner.cleanup()
