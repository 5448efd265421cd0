"""The worker's process: tasks, wiring, recovery, shutdown, logs, health. Calls go from here to the work, never back."""

from labelmill_worker.libraries import WORKER_LIBRARIES, missing_of

# The base install holds this package without its libraries; Celery would answer with a traceback.
if _missing := missing_of(WORKER_LIBRARIES):
    raise SystemExit(f'error: a worker needs {", ".join(_missing)}: pip install "labelmill[worker]"')
