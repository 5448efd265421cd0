"""`labelmill dead-letters`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from labelmill.cli.context import connected, messages, print_json, tables
from labelmill.contracts.database import reading
from labelmill.contracts.tables import KEPT_DEAD_LETTERS
from labelmill.dead_letters import list_dead_letters


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("dead-letters")(dead_letters)


def dead_letters(
    limit: Annotated[int, typer.Option(help="How many to list.", min=1, max=KEPT_DEAD_LETTERS)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List messages that workers dropped, the newest first, with the reason. The newest 1,000 are kept."""
    with reading(connected().engine) as connection:
        found = list_dead_letters(connection, limit)
    if as_json:
        print_json(found)
        return
    if not found:
        messages().print("no message was dropped")
        return
    table = Table("at", "queue", "task", "message id", "reason", "excerpt", box=None)
    for letter in found:
        shown = ("at", "queue", "task", "message_id", "reason", "excerpt")
        table.add_row(*(_one_line(str(letter[name] or "")) for name in shown))
    tables().print(table)


def _one_line(text: str) -> str:
    # an excerpt is a stranger's: no control character of it reaches a terminal
    clean = "".join(letter if letter.isprintable() else " " for letter in text)
    return clean if len(clean) <= 80 else f"{clean[:79]}…"
