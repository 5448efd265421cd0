"""Remote actions on a fine-tuned model at Mistral: archive, unarchive, delete. They are idempotent: before an attempt
counts as refused, Mistral is asked for the model's state."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from sqlalchemy.engine import Engine

from labelmill.contracts.errors import CredentialsRefused, Permanent, RemoteFailed, Retryable, WorkerUnable
from labelmill.contracts.states import RemoteAction
from labelmill_worker.ports.control_plane import ControlPlane
from labelmill_worker.store.faults import UnforeseenFault
from labelmill_worker.store.remote_actions import claim_action, defer_action, settle_action

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


def _no_other_worker(error: WorkerUnable) -> bool:
    del error
    return False


def carry_out_action(
    engine: Engine,
    plane_of: Callable[[], ControlPlane],
    model_no: int,
    leaves_to_others: Callable[[WorkerUnable], bool] = _no_other_worker,
) -> None:
    """Carry out a model's pending remote action. Does nothing when there is none, or another worker has it.
    `leaves_to_others` says whether another worker may do what this one cannot."""
    while (row := claim_action(engine, model_no, LEASE_S)) is not None:
        action = RemoteAction(str(row.remote_wish))
        try:
            _do(plane_of(), action, row.remote_model or "")
        except CredentialsRefused as error:
            pause_s = _LEFT_PAUSE_S if leaves_to_others(error) else _MAX_PAUSE_S  # a key may be changed
            defer_action(engine, row, error.message, pause_s)
            return
        except Permanent as error:
            log.error("Mistral refuses", action=action.value, model=row.remote_model, reason=error.message)
            said = f"could not {action.value} it at Mistral: {error.message}"
            if settle_action(engine, row, said, state=row.remote_state, error=error.message):
                return
            continue
        except Retryable as error:
            pause_s = max(error.retry_after_s or 0.0, min(_MAX_PAUSE_S, 2.0 ** min(row.attempts, 9)))
            defer_action(engine, row, error.message, pause_s)
            return
        except Exception as fault:
            unforeseen = UnforeseenFault(fault, row.faults + 1)
            if unforeseen.is_last:
                said = f"could not {action.value} it at Mistral: {unforeseen.message}"
                settle_action(engine, row, said, state=row.remote_state, error=unforeseen.message)
            else:
                defer_action(engine, row, unforeseen.message, unforeseen.pause_s, faults=unforeseen.count)
            raise
        if settle_action(engine, row, _DONE[action], state=_STATE_AFTER[action]):
            return


def _do(plane: ControlPlane, action: RemoteAction, model_id: str) -> None:
    act = {
        RemoteAction.ARCHIVE: plane.archive_model,
        RemoteAction.UNARCHIVE: plane.unarchive_model,
        RemoteAction.DELETE: plane.delete_model,
    }[action]
    try:
        act(model_id)
    except CredentialsRefused:
        raise
    except Permanent:
        if not _is_so(plane, action, model_id):
            raise


def _is_so(plane: ControlPlane, action: RemoteAction, model_id: str) -> bool:
    """Whether the model is in the requested state already: an earlier attempt's answer may have been lost."""
    try:
        archived = plane.get_model(model_id).is_archived
    except RemoteFailed:
        return action is RemoteAction.DELETE  # it does not exist any more
    return action is not RemoteAction.DELETE and archived is (action is RemoteAction.ARCHIVE)
