"""Adds the commands of this package to `labelmill`: `up`, `demo`, `emulator`, `rehearse`, `flower`."""

from __future__ import annotations

import typer

from labelmill.cli.options import OPERATE
from labelmill_ops.demo.command import demo
from labelmill_ops.emulator.command import emulator
from labelmill_ops.emulator.rehearse import rehearse
from labelmill_ops.flower.command import flower
from labelmill_ops.stack.command import up


def register(app: typer.Typer) -> None:
    """Add the commands; what they need is imported when they run."""
    app.command("up", rich_help_panel=OPERATE)(up)
    app.command("demo", rich_help_panel=OPERATE)(demo)
    app.command("emulator", rich_help_panel=OPERATE)(emulator)
    app.command("rehearse", rich_help_panel=OPERATE)(rehearse)
    app.command("flower", rich_help_panel=OPERATE)(flower)
