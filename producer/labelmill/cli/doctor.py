"""`labelmill doctor`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from labelmill.cli.context import messages, print_json, settings, tables, wants_json
from labelmill.cli.options import OPERATE, AsJson
from labelmill.cli.tables import print_rows
from labelmill.doctor import Check, Status, examine, exit_code_of

_STYLE = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "bold red", Status.UNKNOWN: "dim"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", rich_help_panel=OPERATE)(doctor)


def doctor(
    mistral_timeout: Annotated[float, typer.Option(min=1, max=60, help="Seconds that Mistral may take.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Check everything that work depends on, and name the remedy.

    Exits with 0 when nothing failed, 7 without a usable database, 5 when Mistral refuses a key, else 1.
    """
    checks = examine(settings(), mistral_timeout, lambda step: messages().print(f"{step} …"))
    code = exit_code_of(checks)
    if wants_json(as_json):
        print_json({"ok": code == 0, "checks": [_document(check) for check in checks]})
    else:
        rows = [
            (check.name, Text(check.status.value, _STYLE[check.status]), check.summary, check.remedy)
            for check in checks
        ]
        print_rows(tables(), ("check", "status", "summary", "remedy"), rows, flowing=("summary", "remedy"))
    if code:
        raise typer.Exit(code)


def _document(check: Check) -> dict[str, str]:
    return {"name": check.name, "status": check.status.value, "summary": check.summary, "remedy": check.remedy}
