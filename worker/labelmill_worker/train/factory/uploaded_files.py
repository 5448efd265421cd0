"""The files that an ended training left at Mistral: they hold customers' texts, and nobody needs them any more."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import LabelmillError, RateLimited, Retryable, WorkerUnable
from labelmill_worker.ports.control_plane import ControlPlane
from labelmill_worker.store.uploaded_files import MAX_PAUSE_S, claim_files, defer_files, forget_files

log = structlog.get_logger()

_LEASE_S = 240.0  # above the time that a few calls to Mistral take
_PAUSE_S = 300.0


def delete_uploaded_files(engine: Engine, plane_of: Callable[[], ControlPlane], training_id: str) -> None:
    """Delete what an ended training uploaded, whether its id was written down or not: all names begin with the
    training's id. Does nothing when there is nothing, or another worker is at it; what fails is tried again later."""
    token = claim_files(engine, training_id, _LEASE_S)
    if token is None:
        return
    try:
        left = _delete_files(plane_of(), training_id)
    except (Retryable, WorkerUnable) as error:
        log.warning("uploaded files are deleted later", job_id=training_id, reason=error.message)
        defer_files(engine, training_id, token, max(_PAUSE_S, getattr(error, "retry_after_s", None) or 0.0))
    except LabelmillError as error:
        log.error("uploaded files are left to expire", job_id=training_id, reason=error.message)
        forget_files(engine, training_id, token)
    else:
        if not left:
            forget_files(engine, training_id, token)
            return
        will_pass = any(isinstance(error, Retryable) for error in left)
        log.warning("uploaded files are deleted later", job_id=training_id, files=len(left), reason=left[0].message)
        defer_files(engine, training_id, token, _PAUSE_S if will_pass else MAX_PAUSE_S)


def _delete_files(plane: ControlPlane, training_id: str) -> list[LabelmillError]:
    """Delete each file that can be deleted. Returns why others cannot: one that is in use must not keep the rest.
    Raises what concerns all of them."""
    left: list[LabelmillError] = []
    for file in plane.find_files_of(training_id):
        try:
            plane.delete_file(file.id)
        except RateLimited:
            raise
        except LabelmillError as error:
            if isinstance(error, WorkerUnable) and error.is_about_mistral:
                raise
            left.append(error)
    return left
