"""`labelmill dead-letters`."""

from __future__ import annotations

from typing import Annotated

import typer

from labelmill.cli.context import connected, messages, print_json, tables, wants_json
from labelmill.cli.options import OPERATE, AsJson
from labelmill.cli.tables import print_rows
from labelmill.contracts.control_characters import visible_line
from labelmill.services.dead_letters import KEPT_DEAD_LETTERS, DeadLettersRequest, list_dead_letters


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("dead-letters", rich_help_panel=OPERATE)(dead_letters)


def dead_letters(
    limit: Annotated[int, typer.Option(help="How many to list.", min=1, max=KEPT_DEAD_LETTERS)] = 20,
    as_json: AsJson = False,
) -> None:
    """List messages that workers dropped, newest first, with the reason.

    The newest 1,000 are kept.
    """
    letters = list_dead_letters(connected(), DeadLettersRequest(limit))
    if wants_json(as_json):
        print_json(letters)
        return
    if not letters:
        messages().print("no message was dropped")
        return
    columns = ("at", "queue", "task", "message_id", "reason", "excerpt")
    rows = [[_one_line(str(letter[name] or "")) for name in columns] for letter in letters]
    headings = [name.replace("_", " ") for name in columns]
    print_rows(tables(), headings, rows, flowing=("reason", "excerpt"))


def _one_line(text: str) -> str:
    clean = visible_line(text)
    return clean if len(clean) <= 80 else f"{clean[:79]}…"
