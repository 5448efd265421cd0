"""`labelmill db upgrade`."""

from __future__ import annotations

import typer

from labelmill.cli.context import messages, print_json, settings, wants_json
from labelmill.cli.options import OPERATE, AsJson
from labelmill.services.database import upgrade_tables as upgrade_tables_of


def register(app: typer.Typer) -> None:
    """Add the group `db`."""
    group = typer.Typer(no_args_is_help=True, help="The database's tables.")
    group.command("upgrade")(upgrade_tables)
    app.add_typer(group, name="db", rich_help_panel=OPERATE)


def upgrade_tables(as_json: AsJson = False) -> None:
    """Bring the database's tables to this version.

    Does nothing when they are; safe to run twice at once.
    """
    done = upgrade_tables_of(settings().sql_url, lambda what: messages().print(f"{what} …"))
    before, after = done.before, done.after
    if wants_json(as_json):
        print_json({"before": before, "after": after})
    messages().print(f"tables are at {after}" if before == after else f"tables went from {before or 'none'} to {after}")
