"""The worker: Celery tasks that prepare, train, classify and evaluate. Calls go runtime → work → ports and store."""

from importlib.util import find_spec

# The base install holds this package without its libraries; Celery would answer with a traceback.
_NEEDED = ("datasets", "mistralai", "pyreqwest", "sklearn", "structlog", "uvloop")
_MISSING = [name for name in _NEEDED if find_spec(name) is None]
if _MISSING:
    raise SystemExit(f'error: a worker needs {", ".join(_MISSING)}: pip install "labelmill[worker]"')
