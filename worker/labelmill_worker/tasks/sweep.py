"""`labelmill.sweep`: finds what SQL says is owed and sends it again. Beat asks for it every few seconds."""

from __future__ import annotations

from labelmill_worker.bootstrap import Services
from labelmill_worker.sweep import sweep


def run(services: Services, message: None) -> None:
    """Sweep once, unless another worker does."""
    del message
    sweep(services)
