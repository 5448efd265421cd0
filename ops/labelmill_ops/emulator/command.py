"""`labelmill emulator`: the emulator in the foreground."""

from pathlib import Path
from typing import Annotated

import typer

from labelmill.cli.context import print_json, say, wants_json
from labelmill.cli.options import AsJson
from labelmill_ops.emulator.config import DEFAULT_PORT, EmulatorConfig
from labelmill_ops.emulator.fault_kinds import UnknownFaultError, parse_fault
from labelmill_ops.emulator.limit_option import parse_limit
from labelmill_ops.local_install import EMULATOR, require_local


def check_faults(written: list[str] | None) -> list[str] | None:
    """Refuse a fault that is not written as it should be. A Typer callback."""
    for one in written or ():
        try:
            parse_fault(one)
        except UnknownFaultError as error:
            raise typer.BadParameter(str(error)) from error
    return written


def check_limits(written: list[str] | None) -> list[str] | None:
    """Refuse a limit that is not written as it should be. A Typer callback."""
    for one in written or ():
        try:
            parse_limit(one)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    return written


FaultOption = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        metavar="KIND[@CALL][xTIMES][:PROBABILITY][:PARAMETER]",
        callback=check_faults,
        help="Go wrong on purpose: 502:0.1, slow@classify:0.05:20, 500x3 (repeatable). "
        "`labelmill rehearse --list` shows what there is.",
        show_default=False,
    ),
]
FaultSeedOption = Annotated[int, typer.Option("--fault-seed", help="Seed of the dice that say when a fault strikes.")]


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
    model_limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=REQUESTS[/TOKENS[/TOKENS_A_MONTH]]",
            callback=check_limits,
            help="Limits of a model for a minute that slides, which each answer tells in its headers; - is none, * any "
            "other model (repeatable).",
            show_default=False,
        ),
    ] = None,
    validate_s: Annotated[float, typer.Option(min=0, help="Least seconds of a job's validation.")] = 0.5,
    train_s: Annotated[float, typer.Option(min=0, help="Least seconds of a job's training.")] = 1.5,
    batch_queue_s: Annotated[float, typer.Option(min=0, help="Seconds before a batch job runs.")] = 0.3,
    batch_run_s: Annotated[float, typer.Option(min=0, help="Least seconds that a batch job runs.")] = 1.0,
    batch_billing: Annotated[
        bool, typer.Option("--batch-billing/--no-batch-billing", help="Without it, batch jobs get 402.")
    ] = True,
    fault: FaultOption = None,
    fault_seed: FaultSeedOption = 0,
    state: Annotated[
        Path | None, typer.Option(file_okay=False, help="Keep files, jobs and models in this folder. Default: memory.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve a stand-in for the Mistral API. It is not Mistral: its accuracy and prices say nothing about Mistral's.

    While it runs, `labelmill rehearse` changes its faults, and GET /_control/stats (from this machine) counts what was
    billed, created and uploaded.
    """
    require_local("emulator", *EMULATOR)
    from labelmill_ops.emulator.server import run  # noqa: PLC0415 - scikit-learn is slow to import, --help is not

    config = EmulatorConfig(
        host=host,
        port=port,
        key=key,
        refused_keys=frozenset(refuse_key or ()),
        latency_s=latency,
        requests_per_second=requests_per_second,
        model_limits=dict(map(parse_limit, model_limit or ())),
        validate_s=validate_s,
        train_s=train_s,
        batch_queue_s=batch_queue_s,
        batch_run_s=batch_run_s,
        batch_billing=batch_billing,
        faults=tuple(map(parse_fault, fault or ())),
        fault_seed=fault_seed,
        state_dir=state,
    )
    try:
        run(config, on_listening=lambda url: print_json({"url": url}) if wants_json(as_json) else None)
    except OSError as error:
        say("error", "bold red", f"the emulator cannot listen on {host}:{port}: choose another --port")
        raise typer.Exit(2) from error
