"""Flower's configuration, which `celery -A labelmill_worker.app flower` and `labelmill flower` load.

Flower runs this file itself; every name here that is one of its options sets that option. What a FLOWER_ variable or
the command line says goes first. Pages are open on loopback; anywhere else Flower does not start without
FLOWER_BASIC_AUTH=user:password (or its OAuth).
"""

import os
import sys
from typing import Any

from tornado.options import options as given  # what the command line and FLOWER_* variables already set

from labelmill.contracts.messages import named_job
from labelmill.core.settings import load_settings
from labelmill_worker.runtime.flower.access import LOOPBACK, why_not_to_start
from labelmill_worker.runtime.flower.pages import adapt_pages

_settings = load_settings()
_history = _settings.data_path / "flower"

_DEFAULTS = {
    "address": LOOPBACK,  # Flower's own default is every interface
    "read_only": True,  # looking is its job; who wants to stop workers from a browser says so
    "url_prefix": "",
    "tasks_columns": "name,kwargs,state,received,started,runtime,worker,uuid",
    "max_tasks": 20_000,  # they hold some 170 MB
    "purge_offline_workers": 300,  # seconds
    "db": str(_history),
    # history outlives a restart where there is a local folder for it
    "persistent": bool(os.environ.get("FLOWER_DB")) or _history.parent.is_dir(),
    "state_save_interval": 60_000,  # milliseconds: a kill costs a minute of history, not all of it
}
globals().update({name: value for name, value in _DEFAULTS.items() if not os.environ.get(f"FLOWER_{name.upper()}")})

broker_api = None  # of RabbitMQ's; what stands in FLOWER_BROKER_API is not for Redis


def format_task(task: Any) -> Any:
    """Show a task's arguments as what an operator searches for: the job's id, and the chunk's number."""
    job_id, chunk = named_job(task.kwargs)
    if job_id is not None:
        task.kwargs = job_id if chunk is None else f"{job_id} chunk {chunk}"
    return task


def _check_access() -> None:
    given.address = given.address or LOOPBACK
    if reason := why_not_to_start(given):
        sys.stderr.write(f"error: {reason}\n")
        raise SystemExit(2)


adapt_pages()
given.add_parse_callback(_check_access)  # Flower reads its command line once more after this file
