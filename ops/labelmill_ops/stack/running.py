"""The life of a local stack: lock, migrate, start, announce, watch, drain."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from labelmill.cli.context import messages, print_json, say
from labelmill.cli.context import settings as current_settings
from labelmill.contracts.errors import InvalidInput
from labelmill.core.addresses.parts import hide_password
from labelmill.core.database import connect, upgrade
from labelmill.core.settings import Settings
from labelmill_ops.stack.local import LocalStack, StackOptions, announced, data_folder_lock, plan_stack
from labelmill_ops.stack.supervisor import StopRequested, Supervisor
from labelmill_ops.stack.verbose import LogFollower

_READY_TIMEOUT_S = 90


def run_stack(options: StackOptions, *, drain_s: float, verbose: bool, as_json: bool) -> None:
    """Run the stack until Ctrl-C or SIGTERM. `as_json`: print its addresses on stdout too, once it is up.

    Raises InvalidInput, DatabaseUnavailable, StartFailed."""
    console = messages()
    data_dir = current_settings().data_dir
    if "://" in data_dir:
        raise InvalidInput(f"`labelmill up` needs a data folder on this machine, not {data_dir}")
    with data_folder_lock(current_settings().data_path):
        stack = plan_stack(current_settings(), options)

        def show(line: str) -> None:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

        supervisor = Supervisor(
            stack.settings.data_path / "logs", show, LogFollower(show, prefix="worker") if verbose else None
        )
        with supervisor.listening_for_signals():
            try:
                _start(supervisor, stack, console)
                with announced(stack.settings):
                    _introduce(stack.settings, options, console)
                    if as_json:
                        print_json(_addresses(stack.settings))
                    supervisor.watch()
                show("stopping: workers finish what they hold; Ctrl-C again does not wait")
            except StopRequested:
                show("stopping before everything was ready")
            finally:
                supervisor.drain(drain_s)
        show("stopped")


def _start(supervisor: Supervisor, stack: LocalStack, console: Console) -> None:
    with console.status("starting Redis, database, workers"):
        if stack.redis:
            supervisor.start([stack.redis], timeout_s=30)
        engine = connect(stack.settings.sql_url)
        try:
            upgrade(engine)
        finally:
            engine.dispose()
        supervisor.start(stack.rest, _READY_TIMEOUT_S)


def _addresses(settings: Settings) -> dict[str, str | None]:
    return {
        "broker_url": hide_password(settings.broker_url),
        "database_url": hide_password(settings.database_url),
        "mistral_url": settings.mistral_url,
        "flower_url": settings.flower_url,
        "data_dir": settings.data_dir,
    }


def _introduce(settings: Settings, options: StackOptions, console: Console) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("Redis", hide_password(settings.broker_url))
    table.add_row("database", hide_password(settings.database_url))
    table.add_row("Mistral", settings.mistral_url + (" (emulator: it is not Mistral)" if options.emulator else ""))
    if settings.flower_url:
        table.add_row("Flower", settings.flower_url)
    table.add_row("workers", f"{options.worker_processes} x {options.concurrency} tasks")
    table.add_row("logs", str(settings.data_path / "logs"))
    console.print(Text("Labelmill is up.", style="bold green"))
    console.print(table, soft_wrap=True)
    if settings.mistral_api_key is None:
        say("warning", "yellow", "MISTRAL_API_KEY is not set: what needs Mistral will be refused (or add --emulator)")
    console.print(
        "Next, in another terminal in this folder: labelmill prepare NAME FILE --target intent=COLUMN\n"
        "Ctrl-C finishes running work and stops everything.",
        highlight=False,
        soft_wrap=True,
    )
