"""`labelmill demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labelmill.cli.context import wants_json
from labelmill.cli.options import AsJson
from labelmill_ops.local_install import EMULATOR, FLOWER, WORKERS, require_local


def demo(
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", file_okay=False, help="Folder for the results; made when missing.")
    ] = Path("labelmill-demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack up at the end, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Prepare, train, evaluate and classify the bundled sample on a temporary stack. Needs no key and spends nothing.

    Mistral is played by the emulator: the figures say nothing about Mistral's models.
    """
    require_local("demo", *WORKERS, *EMULATOR, *FLOWER)
    from labelmill_ops.demo.script import run_demo  # noqa: PLC0415 - not needed for --help

    run_demo(output.absolute(), keep=keep, as_json=wants_json(as_json))
