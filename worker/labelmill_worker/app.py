"""The Celery application. Importing it reads settings and connects to nothing.

celery -A labelmill_worker.app worker -Q prepare,train,classify -c 4
celery -A labelmill_worker.app flower

What is Labelmill's own of Celery: `runtime/celery_app.py` its classes, `runtime/bootsteps/` the parts of a worker's
process, `runtime/signals.py` what happens when it starts and ends, `runtime/tasks/` the tasks.
"""

from __future__ import annotations

import sys

from celery import Celery

from labelmill.contracts.errors import InvalidInput
from labelmill.core.settings import Settings, load_settings
from labelmill_worker.runtime import health_check
from labelmill_worker.runtime.bootsteps import add_bootsteps
from labelmill_worker.runtime.celery_app import WorkerApp
from labelmill_worker.runtime.flower import prepare_flower
from labelmill_worker.runtime.signals import connect_signals
from labelmill_worker.runtime.tasks.registry import register_tasks


def create_app(settings: Settings | None = None) -> Celery:
    """A Celery application with every task of Labelmill."""
    settings = settings or load_settings()
    app = WorkerApp.of(settings)
    add_bootsteps(app)
    register_tasks(app, settings)
    return app


def _app_of_this_process() -> Celery:
    try:
        return create_app()
    except InvalidInput as error:
        # Celery's command would print a traceback
        sys.stderr.write(f"error: {error.message}\n")
        raise SystemExit(error.exit_code) from error


__all__ = ["app", "create_app", "health_check"]  # importing `health_check` adds its command

connect_signals()
prepare_flower()  # only importing the application comes before Flower reads its options
app = _app_of_this_process()
