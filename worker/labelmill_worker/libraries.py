"""Which libraries a worker needs that the base install does not have."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

WORKER_LIBRARIES = ("datasets", "mistralai", "pyreqwest", "sklearn", "structlog", "uvloop")


def missing_of(names: Iterable[str]) -> list[str]:
    """Those of the libraries that are not installed. Nothing is imported."""
    return [name for name in names if find_spec(name) is None]
