"""`labelmill purge`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from labelmill.cli.context import connected, print_json, tables, wants_json
from labelmill.cli.options import OPERATE, AsJson
from labelmill.cli.tables import print_rows
from labelmill.services.purging import Purged, PurgeRequest, purge


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("purge", rich_help_panel=OPERATE)(purge_command)


def purge_command(
    older_than: Annotated[str, typer.Option(metavar="AGE", help="How long ago jobs ended: 90d, 8w, 12h, 30m.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be deleted, and delete nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete jobs that ended long ago, with their rows and files.

    Open and paused jobs stay, model versions with their files, and whatever these need. It may run beside workers.
    """
    purged = purge(connected(), PurgeRequest(older_than, dry_run))
    if wants_json(as_json):
        document = asdict(purged) | {"older_than": older_than, "before": purged.before.isoformat(timespec="seconds")}
        print_json(document)
        return
    _print(purged)


def _print(purged: Purged) -> None:
    console = tables()
    would = "would be deleted" if purged.dry_run else "deleted"
    rows = [["jobs", f"{kind}s" if kind != "batch" else "batches", str(count)] for kind, count in purged.jobs.items()]
    rows += [["rows", table, str(count)] for table, count in purged.rows.items() if count]
    rows.append(["files", f"{purged.bytes / 1e6:.1f} MB", str(purged.files)])
    print_rows(console, ["what", "of", would], rows)
    if kept_jobs := sum(purged.kept.values()):
        console.print(f"{kept_jobs} old jobs stay: a model version or a job that stays needs them")
