"""What a person wished for a fine-tuned model at Mistral: archived, brought back, deleted. Any number of attempts does
the same as one: before an attempt counts as refused, Mistral is asked how the model stands."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import CredentialsRefused, Permanent, RemoteFailed, Retryable, WorkerUnable
from labelmill.contracts.states import RemoteAction
from labelmill_worker.ports.control_plane import ControlPlane
from labelmill_worker.store.faults import UnforeseenFault
from labelmill_worker.store.remote_actions import claim_wish, put_off_wish, settle_wish

log = structlog.get_logger()

LEASE_S = 120.0  #: Above the time that one call to Mistral may take, with its retries.
_MAX_PAUSE_S = 300.0
_LEFT_PAUSE_S = 1.0

_STATE_AFTER = {RemoteAction.ARCHIVE: "archived", RemoteAction.UNARCHIVE: None, RemoteAction.DELETE: "deleted"}
_DONE = {
    RemoteAction.ARCHIVE: "archived at Mistral: its storage fee has stopped",
    RemoteAction.UNARCHIVE: "brought back at Mistral",
    RemoteAction.DELETE: "deleted at Mistral",
}


def _nobody_else(error: WorkerUnable) -> bool:
    del error
    return False


def carry_out_wish(
    engine: Engine,
    plane_of: Callable[[], ControlPlane],
    model_no: int,
    leaves_to_others: Callable[[WorkerUnable], bool] = _nobody_else,
) -> None:
    """Do what is owed for a model. Does nothing when nothing is, or somebody else is at it. `leaves_to_others` says
    whether another worker may do what this one cannot."""
    while (row := claim_wish(engine, model_no, LEASE_S)) is not None:
        what = RemoteAction(str(row.remote_wish))
        try:
            _do(plane_of(), what, row.remote_model or "")
        except CredentialsRefused as error:
            pause_s = _LEFT_PAUSE_S if leaves_to_others(error) else _MAX_PAUSE_S  # a key may be changed
            put_off_wish(engine, row, error.message, pause_s)
            return
        except Permanent as error:
            log.error("Mistral refuses", wish=what.value, model=row.remote_model, reason=error.message)
            said = f"could not {what.value} it at Mistral: {error.message}"
            if settle_wish(engine, row, said, state=row.remote_state, error=error.message):
                return
            continue
        except Retryable as error:
            pause_s = max(error.retry_after_s or 0.0, min(_MAX_PAUSE_S, 2.0 ** min(row.attempts, 9)))
            put_off_wish(engine, row, error.message, pause_s)
            return
        except Exception as fault:
            found = UnforeseenFault(fault, row.faults + 1)
            if found.is_last:
                said = f"could not {what.value} it at Mistral: {found.message}"
                settle_wish(engine, row, said, state=row.remote_state, error=found.message)
            else:
                put_off_wish(engine, row, found.message, found.pause_s, faults=found.count)
            raise
        if settle_wish(engine, row, _DONE[what], state=_STATE_AFTER[what]):
            return


def _do(plane: ControlPlane, what: RemoteAction, model_id: str) -> None:
    act = {
        RemoteAction.ARCHIVE: plane.archive_model,
        RemoteAction.UNARCHIVE: plane.unarchive_model,
        RemoteAction.DELETE: plane.delete_model,
    }[what]
    try:
        act(model_id)
    except CredentialsRefused:
        raise
    except Permanent:
        if not _is_so(plane, what, model_id):
            raise


def _is_so(plane: ControlPlane, what: RemoteAction, model_id: str) -> bool:
    """Whether the model is as wished already: an earlier attempt's answer may have been lost."""
    try:
        archived = plane.get_model(model_id).is_archived
    except RemoteFailed:
        return what is RemoteAction.DELETE  # gone is gone
    return what is not RemoteAction.DELETE and archived is (what is RemoteAction.ARCHIVE)
