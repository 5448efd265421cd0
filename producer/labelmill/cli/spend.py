"""`labelmill spend`."""

from __future__ import annotations

from typing import Annotated

import typer

from labelmill.cli.context import connected, print_json, tables, wants_json
from labelmill.cli.figures import money
from labelmill.cli.options import OPERATE, AsJson
from labelmill.cli.tables import print_rows
from labelmill.contracts.documents.money import SpentInCurrency
from labelmill.services.spending import SpendRequest, spend


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("spend", rich_help_panel=OPERATE)(spend_command)


def spend_command(
    by: Annotated[str, typer.Option(help="job, model, day or month.")] = "month",
    since: Annotated[str | None, typer.Option(metavar="DAY", help="The first day, in UTC: 2026-11-01.")] = None,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="The last day, in UTC.")] = None,
    as_json: AsJson = False,
) -> None:
    """What was spent at Mistral, by the ledger."""
    document = spend(connected(), SpendRequest(by, since, until))
    if wants_json(as_json):
        print_json(document)
        return
    console = tables()
    in_use = [spent for spent in (document, *document["other_currencies"]) if spent["rows"]]
    if not in_use:
        console.print("nothing was spent")
    for spent in in_use:
        print_rows(console, [by, "requests", "tokens", "of them cached", "amount", "by"], _rows(spent))
        console.print(f"{money({'amount': spent['total'], 'currency': spent['currency']})} in all")


def _rows(spent: SpentInCurrency) -> list[list[str]]:
    return [
        [
            row["key"],
            f"{row['requests']:,}",
            f"{row['tokens']:,}",
            f"{row['cached_tokens']:,}",
            money({"amount": row["amount"], "currency": spent["currency"]}) or "no price is known",
            "tokens counted here" if row["estimated"] else "tokens that Mistral reported",
        ]
        for row in spent["rows"]
    ]
