"""Flower's configuration: `celery -A labelmill_worker.app flower --conf=<this file>`.

Flower runs this file itself; every name here that is one of its options sets that option. Pages are open on loopback;
anywhere else Flower does not start without FLOWER_BASIC_AUTH=user:password (or its OAuth).
"""

import os
import pathlib
from typing import Any

from tornado.options import options as given  # what the command line and FLOWER_* variables already set

from labelmill.contracts.loopback import is_loopback
from labelmill.contracts.messages import named_job


def format_task(task: Any) -> Any:
    """Show a task's arguments as what an operator looks up: the job's id, and the chunk's number."""
    job_id, chunk = named_job(task.kwargs)
    if job_id is not None:
        task.kwargs = job_id if chunk is None else f"{job_id} chunk {chunk}"
    return task


address = given.address or "127.0.0.1"  # Flower's own default is every interface
if not (given.unix_socket or given.basic_auth or given.auth or is_loopback(address)):
    raise SystemExit(f"Flower does not start on {address} without a password: set FLOWER_BASIC_AUTH=user:password")

# Looking is its job; who wants to stop workers from a browser says so.
read_only = os.environ.get("FLOWER_READ_ONLY", "true").lower() not in {"0", "false", "no", "off"}
url_prefix = os.environ.get("FLOWER_URL_PREFIX", "")

tasks_columns = os.environ.get("FLOWER_TASKS_COLUMNS", "name,kwargs,state,received,started,runtime,worker,uuid")
max_tasks = int(os.environ.get("FLOWER_MAX_TASKS", "20000"))  # 20,000 hold some 170 MB
purge_offline_workers = int(os.environ.get("FLOWER_PURGE_OFFLINE_WORKERS", "300"))  # seconds

_data_dir = os.path.expanduser(os.environ.get("LABELMILL_DATA_DIR", ".labelmill"))  # noqa: PTH111 - as in Settings
db = os.environ.get("FLOWER_DB") or str(pathlib.Path(_data_dir) / "flower")
# history outlives a restart where there is a local folder for it
persistent = bool(os.environ.get("FLOWER_DB")) or ("://" not in _data_dir and pathlib.Path(_data_dir).is_dir())
state_save_interval = 60_000  # milliseconds: a kill costs a minute of history, not all of it
