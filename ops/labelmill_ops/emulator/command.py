"""`labelmill emulator`: the emulator in the foreground."""

from pathlib import Path
from typing import Annotated

import typer

from labelmill_ops.emulator.config import DEFAULT_PORT, EmulatorConfig


def emulator(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = DEFAULT_PORT,
    key: Annotated[str | None, typer.Option(help="Accept only this API key. Default: any.")] = None,
    refuse_key: Annotated[list[str] | None, typer.Option(help="Answer 401 to this API key (repeatable).")] = None,
    latency: Annotated[float, typer.Option(min=0, help="Seconds added to every request.")] = 0.0,
    requests_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="Answer 429 above this rate. Default: no limit.")
    ] = None,
    validate_s: Annotated[float, typer.Option(min=0, help="Least seconds of a job's validation.")] = 0.5,
    train_s: Annotated[float, typer.Option(min=0, help="Least seconds of a job's training.")] = 1.5,
    state: Annotated[
        Path | None, typer.Option(file_okay=False, help="Keep files, jobs and models in this folder. Default: memory.")
    ] = None,
) -> None:
    """Serve a stand-in for the Mistral API. It is not Mistral: its accuracy and prices say nothing about Mistral's."""
    from labelmill_ops.emulator.server import run  # noqa: PLC0415 - scikit-learn is slow to import, --help is not

    config = EmulatorConfig(
        host=host,
        port=port,
        key=key,
        refused_keys=frozenset(refuse_key or ()),
        latency_s=latency,
        requests_per_second=requests_per_second,
        validate_s=validate_s,
        train_s=train_s,
        state_dir=state,
    )
    try:
        run(config)
    except OSError as error:
        typer.echo(f"The emulator cannot listen on {host}:{port}: {error.strerror or error}", err=True)
        raise typer.Exit(1) from error
