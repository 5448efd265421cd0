"""Moving a batch of mode auto to realtime in time for its deadline: what `deadline.py` decides, from what is known."""

from __future__ import annotations

import math
from typing import NamedTuple

import structlog

from labelmill.contracts.states import RemoteStep, Stopping
from labelmill.core.database import reading
from labelmill.core.remote_models import names_of, read_list
from labelmill.core.reported_limits import known_limits
from labelmill_worker.inference.batch_mode.deadline import (
    SAFETY,
    Decision,
    JobProgress,
    PastBatch,
    PastJob,
    decide,
    drain_s,
    realtime_per_s,
    reason_to_stay,
)
from labelmill_worker.inference.batch_mode.packing import MAX_EMBEDDED_TEXTS, MAX_REQUESTS
from labelmill_worker.inference.batch_mode.work import RemoteWork
from labelmill_worker.mistral.ratelimit.limits import Limit, RateLimits
from labelmill_worker.store.batch_pace import ended_jobs, realtime_batches, remainder_of
from labelmill_worker.store.remote_stops import ask_to_stop, explain_mode

log = structlog.get_logger()

_NOT_MADE = (RemoteStep.PACKING, RemoteStep.UPLOADING, RemoteStep.CREATING)
_HOLD_S = 10.0  #: Between two looks at whether a batch's earlier jobs have ended.


class Timing(NamedTuple):
    """`decide_again_s`: within how many seconds to decide anew; None: the batch moves, or has no deadline. Without
    `may_step` the next step is not taken before."""

    decide_again_s: float | None
    may_step: bool = True


class _Rest(NamedTuple):
    """What is left of a batch. `realtime_s`: what it takes in realtime; `requests_here`: those not at Mistral."""

    realtime_s: float
    requests_here: int
    rows_at_mistral: int


def move_in_time(work: RemoteWork) -> Timing:
    """Have the batch moved to realtime if its deadline needs it."""
    batch = work.claim.batch
    if batch.deadline_s is None:
        return Timing(None)
    decision, rest = _decision(work, batch.deadline_s)
    if decision.reason is None:
        return Timing(max(0.1, decision.look_again_s))
    row = work.claim.row
    others_are_at_mistral = rest.rows_at_mistral > row.rows
    if work.claim.step in _NOT_MADE and not row.creations and others_are_at_mistral and not decision.is_due:
        # what is at Mistral may well be in time: only what a further job would answer too late is sent in realtime
        return Timing(max(0.1, min(decision.latest_s, _HOLD_S)), may_step=False)
    if ask_to_stop(work.engine, batch.id, Stopping.REALTIME, decision.reason):
        log.info("batch moves to realtime", reason=decision.reason)
    return Timing(None)


def patience_to_move_s(work: RemoteWork, since_s: float) -> float:
    """How much longer partial results are waited for: until the remainder in realtime needs all the time that is left,
    but 30 s at least from `since_s` seconds ago on. Infinite without a deadline."""
    deadline_s = work.claim.batch.deadline_s
    if deadline_s is None:
        return math.inf
    return max(drain_s(0) - since_s, deadline_s - SAFETY * _rest_of(work).realtime_s)


def latest_move_s(work: RemoteWork) -> float:
    """Seconds until the latest moment to move; infinite without a deadline."""
    deadline_s = work.claim.batch.deadline_s
    if deadline_s is None:
        return math.inf
    rest = _rest_of(work)
    return deadline_s - SAFETY * rest.realtime_s - drain_s(rest.rows_at_mistral)


def _decision(work: RemoteWork, deadline_s: float) -> tuple[Decision, _Rest]:
    row = work.claim.row
    history = [PastJob(*job) for job in ended_jobs(work.engine, _model(work))]
    rest = _rest_of(work)
    elapsed_s = None if row.made_at is None else max(0.0, work.claim.now - row.made_at)
    job = JobProgress(row.requests or min(rest.requests_here, _most_requests(work)), row.answered, elapsed_s)
    decision = decide(
        deadline_s=deadline_s,
        realtime_s=rest.realtime_s,
        drain=drain_s(rest.rows_at_mistral),
        job=job,
        history=history,
    )
    if decision.reason is None and work.claim.step is RemoteStep.PACKING:
        explain_mode(work.engine, work.claim.batch.id, reason_to_stay(deadline_s, job, history))
    return decision, rest


def _rest_of(work: RemoteWork) -> _Rest:
    settings, row = work.context.settings, work.claim.row
    left = remainder_of(work.engine, work.claim.batch.no)
    texts_per_request = row.rows / row.requests if row.requests else _texts_per_request(work)
    requests = max(1, round(left.texts / max(1.0, texts_per_request)))
    limit = _limit(work)
    per_s = realtime_per_s(
        [PastBatch(*batch) for batch in realtime_batches(work.engine, _model(work))],
        requests_per_s=limit.requests_per_s,
        tokens_per_s=limit.tokens_per_s,
        in_flight=settings.max_in_flight,
    )
    here = max(1, round((left.texts - left.rows_at_mistral) / max(1.0, texts_per_request)))
    return _Rest(requests / per_s, here, left.rows_at_mistral)


def _limit(work: RemoteWork) -> Limit:
    """What is set for the model, and what Mistral told of its limits."""
    model = _model(work)
    with reading(work.engine) as connection:
        known = known_limits(connection, [model]).get(model)
        names = names_of(model, read_list(connection)) if work.context.settings.model_limits else ()
    limit = RateLimits.from_settings(work.context.settings).of(model, names)
    if known is None:
        return limit
    told = Limit.of(known.requests_per_minute and known.requests_per_minute / 60, known.tokens_per_minute)
    return limit.at_most(told)


def _texts_per_request(work: RemoteWork) -> int:
    """Before anything is packed."""
    model = work.claim.batch.model
    if model.method == "prompt":
        numbered = (model.recipe or {}).get("numbered")
        return int(numbered["texts"]) if numbered else 1
    return work.context.settings.texts_per_request


def _most_requests(work: RemoteWork) -> int:
    """Of one job, before anything is packed: the others run beside it."""
    if work.claim.batch.model.method == "embedding":
        return max(1, MAX_EMBEDDED_TEXTS // _texts_per_request(work))
    return MAX_REQUESTS


def _model(work: RemoteWork) -> str:
    return work.claim.batch.model.remote_model or ""
