"""`/v1/fine_tuning/jobs`: create, list, get, start, cancel."""

import time
import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from labelmill_ops.emulator.job_requests import CreateJob
from labelmill_ops.emulator.jobs import JOBS, WrongStatusError
from labelmill_ops.emulator.replies import (
    RefusedError,
    invalid_model,
    json_body,
    json_reply,
    refusal,
    timestamp,
    unprocessable,
)
from labelmill_ops.emulator.routes_files import page_of
from labelmill_ops.emulator.stats import STATS
from labelmill_ops.emulator.store import STORE, StoredJob

FINE_TUNEABLE = "ministral-3b"


def job_routes() -> list[web.RouteDef]:
    """Return the routes of fine-tuning jobs."""
    return [
        web.post("/v1/fine_tuning/jobs", _create),
        web.get("/v1/fine_tuning/jobs", _list_jobs),
        web.get("/v1/fine_tuning/jobs/{job_id}", _get),
        web.post("/v1/fine_tuning/jobs/{job_id}/start", _start),
        web.post("/v1/fine_tuning/jobs/{job_id}/cancel", _cancel),
    ]


async def _create(request: web.Request) -> web.Response:
    body = await json_body(request)
    try:
        asked = CreateJob.model_validate(body)
    except ValidationError as error:
        details = [
            {"type": detail["type"], "loc": ["body", *detail["loc"]], "msg": detail["msg"]} for detail in error.errors()
        ]
        raise RefusedError(422, {"detail": details}) from error
    if not asked.model.startswith(FINE_TUNEABLE):
        raise invalid_model(asked.model, 400)
    if not asked.training_files:
        raise unprocessable("training_files", "At least one training file is needed")
    training_files = [file.file_id for file in asked.training_files]
    for file_id in (*training_files, *(asked.validation_files or ())):
        if file_id not in request.app[STORE].files:
            raise refusal(404, f"No file matches the given query: {file_id}")
    now = int(time.time())
    job = StoredJob(
        id=str(uuid.uuid4()),
        model=asked.model,
        auto_start=asked.auto_start is not False,
        created_at=now,
        modified_at=now,
        training_files=training_files,
        validation_files=list(asked.validation_files or ()),
        hyperparameters=asked.hyperparameters.model_dump(),
        suffix=asked.suffix,
        integrations=[integration.echoed() for integration in asked.integrations or ()],
        asked_targets=[target.model_dump() for target in asked.classifier_targets or ()],
    )
    stats = request.app[STATS]
    stats.jobs_created += 1
    request.app[JOBS].create(job)
    if job.fate:
        stats.faults[job.fate] += 1
    return json_reply(_described(job))


async def _list_jobs(request: web.Request) -> web.Response:
    page, size = page_of(request)
    wanted = _filter_of(request)
    jobs = [job for job in reversed(request.app[STORE].jobs.values()) if wanted(job)]
    shown = jobs[page * size : (page + 1) * size]
    return json_reply({"data": [_described(job) for job in shown], "object": "list", "total": len(jobs)})


async def _get(request: web.Request) -> web.Response:
    return json_reply(_detailed(_found(request)))


async def _start(request: web.Request) -> web.Response:
    job = _found(request)
    try:
        request.app[JOBS].start(job)
    except WrongStatusError as error:
        raise refusal(400, str(error)) from error
    request.app[STATS].jobs_started += 1
    return json_reply(_detailed(job))


async def _cancel(request: web.Request) -> web.Response:
    job = _found(request)
    try:
        request.app[JOBS].cancel(job)
    except WrongStatusError as error:
        raise refusal(400, str(error)) from error
    return json_reply(_detailed(job))


def _found(request: web.Request) -> StoredJob:
    job_id = request.match_info["job_id"]
    try:
        return request.app[STORE].jobs[job_id]
    except KeyError as error:
        raise refusal(404, f"No fine-tuning job matches the given query: {job_id}") from error


def _filter_of(request: web.Request) -> Callable[[StoredJob], bool]:
    query = request.query
    after, before = timestamp(query.get("created_after")), timestamp(query.get("created_before"))

    def matches(job: StoredJob) -> bool:
        integrations = job.integrations or [{}]
        return (
            query.get("model") in (None, job.model)
            and query.get("status") in (None, job.status)
            and query.get("suffix") in (None, job.suffix)
            and (after is None or job.created_at >= after)
            and (before is None or job.created_at <= before)
            and any(query.get("wandb_project") in (None, wandb.get("project")) for wandb in integrations)
            and any(query.get("wandb_name") in (None, wandb.get("name")) for wandb in integrations)
        )

    return matches


def _described(job: StoredJob) -> dict[str, Any]:
    return {
        "id": job.id,
        "object": "job",
        "job_type": "classifier",
        "auto_start": job.auto_start,
        "model": job.model,
        "status": job.status,
        "created_at": job.created_at,
        "modified_at": job.modified_at,
        "training_files": job.training_files,
        "validation_files": job.validation_files,
        "hyperparameters": job.hyperparameters,
        "fine_tuned_model": job.fine_tuned_model,
        "suffix": job.suffix,
        "integrations": job.integrations,
        "trained_tokens": job.trained_tokens,
        "metadata": job.metadata or None,
    }


def _detailed(job: StoredJob) -> dict[str, Any]:
    return {
        **_described(job),
        "classifier_targets": job.targets,
        # As at Mistral, the latest first.
        "events": job.events[::-1],
        "checkpoints": job.checkpoints[::-1],
        "message": job.message,
    }
