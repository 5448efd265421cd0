"""`labelmill up`: the local stack in the foreground."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

import typer

from labelmill.cli.context import wants_json
from labelmill.cli.options import AsJson
from labelmill.contracts.errors import InvalidInput
from labelmill_ops.emulator.command import FaultOption, FaultSeedOption
from labelmill_ops.local_install import EMULATOR, FLOWER, WORKERS, require_local


def _port(default: str) -> Any:
    return typer.Option(min=1, max=65535, show_default=False, help=f"Default: {default}.")


def up(
    *,
    emulator: Annotated[bool, typer.Option("--emulator", help="Add the stand-in for Mistral, and use it.")] = False,
    flower: Annotated[bool, typer.Option("--flower/--no-flower", help="Show the queue in a browser.")] = True,
    worker_processes: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 2,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Tasks at a time in each of them.")] = 4,
    redis_port: Annotated[int | None, _port("any free one")] = None,
    flower_port: Annotated[int | None, _port("5555 if it is free")] = None,
    emulator_port: Annotated[int | None, _port("any free one")] = None,
    fault: FaultOption = None,
    fault_seed: FaultSeedOption = 0,
    drain_s: Annotated[float, typer.Option(min=0, help="Seconds that workers have to finish at the end.")] = 30,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the workers log.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run Redis, the database, workers and Flower until Ctrl-C; a second Ctrl-C does not wait.

    A LABELMILL_BROKER_URL or LABELMILL_DATABASE_URL of yours is used instead of a local one.
    """
    if emulator_port and not emulator:
        raise InvalidInput("--emulator-port needs --emulator")
    if fault and not emulator:
        raise InvalidInput("--fault needs --emulator: Mistral itself cannot be told to fail")
    if flower_port and not flower:
        raise InvalidInput("--flower-port cannot go with --no-flower")
    require_local("up", *WORKERS, *(EMULATOR if emulator else ()), *(FLOWER if flower else ()))
    from labelmill_ops.stack.local import StackOptions  # noqa: PLC0415 - Celery is slow to import, --help is not
    from labelmill_ops.stack.running import run_stack  # noqa: PLC0415 - as above

    options = StackOptions(
        emulator=emulator,
        flower=flower,
        worker_processes=worker_processes,
        concurrency=concurrency,
        redis_port=redis_port,
        flower_port=flower_port,
        emulator_port=emulator_port,
        faults=tuple(fault or ()),
        fault_seed=fault_seed,
    )
    with contextlib.suppress(KeyboardInterrupt):
        run_stack(options, drain_s=drain_s, verbose=verbose, as_json=wants_json(as_json))
