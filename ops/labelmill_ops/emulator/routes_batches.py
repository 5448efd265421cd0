"""`/v1/batch/jobs`: create, list, get, cancel, delete."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web
from pydantic import ValidationError

from labelmill_ops.emulator.auth import owner_of
from labelmill_ops.emulator.batch_requests import CreateBatch
from labelmill_ops.emulator.batches import BATCHES, ENDED
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_ops.emulator.replies import (
    RefusedError,
    invalid_model,
    json_body,
    json_reply,
    refusal,
    timestamp,
    unprocessable,
)
from labelmill_ops.emulator.routes_files import page_of, readable_file
from labelmill_ops.emulator.routes_models import BASE_MODELS
from labelmill_ops.emulator.store import STORE, StoredBatch

_FILTERS = frozenset({"page", "page_size", "model", "agent_id", "created_after", "created_by_me", "status", "order_by"})


def batch_routes(config: EmulatorConfig) -> list[web.RouteDef]:
    """Return the routes of batch jobs."""

    def billed(handle: Callable[[web.Request], Any]) -> Callable[[web.Request], Any]:
        async def check_billing(request: web.Request) -> web.StreamResponse:
            if not config.batch_billing:
                raise refusal(402, "Batch inference needs billing to be enabled", ("payment_required", "1200"))
            response: web.StreamResponse = await handle(request)
            return response

        return check_billing

    return [
        web.post("/v1/batch/jobs", billed(_create)),
        web.get("/v1/batch/jobs", billed(_list_jobs)),
        web.get("/v1/batch/jobs/{job_id}", billed(_get)),
        web.post("/v1/batch/jobs/{job_id}/cancel", billed(_cancel)),
        web.delete("/v1/batch/jobs/{job_id}", billed(_delete)),
    ]


async def _create(request: web.Request) -> web.Response:
    body = await json_body(request)
    try:
        asked = CreateBatch.model_validate(body)
    except ValidationError as error:
        details = [
            {"type": detail["type"], "loc": ["body", *detail["loc"]], "msg": detail["msg"]} for detail in error.errors()
        ]
        raise RefusedError(422, {"detail": details}) from error
    runner, store = request.app[BATCHES], request.app[STORE]
    if asked.endpoint not in runner.endpoints:
        raise unprocessable("endpoint", f"Input should be one of {', '.join(sorted(runner.endpoints))}", "enum")
    if bool(asked.input_files) == bool(asked.requests):
        raise unprocessable("input_files", "Either input_files or requests is needed, and not both")
    if asked.model is not None and asked.model not in BASE_MODELS and asked.model not in store.models:
        raise invalid_model(asked.model, 400)
    for file_id in asked.input_files or ():
        if readable_file(request, file_id).purpose != "batch":
            raise refusal(400, f"The purpose of file {file_id} is not batch")
    job = StoredBatch(
        id=str(uuid.uuid4()),
        endpoint=asked.endpoint,
        owner=owner_of(request),
        created_at=int(time.time()),
        timeout_hours=asked.timeout_hours,
        input_files=asked.input_files or [],
        requests=[one.model_dump() for one in asked.requests] if asked.requests else None,
        model=asked.model,
        agent_id=asked.agent_id,
        metadata=asked.metadata,
    )
    runner.create(job)
    return json_reply(_described(job))


async def _list_jobs(request: web.Request) -> web.Response:
    page, size = page_of(request)
    wanted = _filter_of(request)
    jobs = [job for job in request.app[STORE].batches.values() if wanted(job)]
    order_by = request.query.get("order_by", "-created")
    if order_by not in ("created", "-created"):
        raise unprocessable("order_by", "Input should be 'created' or '-created'", "literal_error")
    if order_by == "-created":
        jobs.reverse()
    shown = jobs[page * size : (page + 1) * size]
    return json_reply({"data": [_described(job) for job in shown], "object": "list", "total": len(jobs)})


async def _get(request: web.Request) -> web.Response:
    job = _found(request)
    described = _described(job)
    if request.query.get("inline") in ("true", "True", "1") and job.status in ENDED:
        described["outputs"] = list(map(orjson.Fragment, job.outputs or _lines_of(request, job)))
    return json_reply(described)


async def _cancel(request: web.Request) -> web.Response:
    job = _found(request)
    request.app[BATCHES].cancel(job)
    return json_reply(_described(job))


async def _delete(request: web.Request) -> web.Response:
    job = _found(request)
    if job.status not in ENDED:
        raise refusal(400, f"Job {job.id} cannot be deleted: its status is {job.status}")
    request.app[STORE].delete_batch(job.id)
    return json_reply({"id": job.id, "object": "batch", "deleted": True})


def _lines_of(request: web.Request, job: StoredBatch) -> list[bytes]:
    store = request.app[STORE]
    files = [file_id for file_id in (job.output_file, job.error_file) if file_id in store.files]
    return [line for file_id in files for line in store.content_of(file_id).splitlines()]


def _found(request: web.Request) -> StoredBatch:
    job_id = request.match_info["job_id"]
    try:
        return request.app[STORE].batches[job_id]
    except KeyError as error:
        raise refusal(404, f"No batch job matches the given query: {job_id}") from error


def _filter_of(request: web.Request) -> Callable[[StoredBatch], bool]:
    query = request.query
    after, statuses = timestamp(query.get("created_after")), query.getall("status", [])
    metadata = {name: value for name, value in query.items() if name not in _FILTERS}
    owner = owner_of(request) if query.get("created_by_me") in ("true", "True", "1") else None

    def matches(job: StoredBatch) -> bool:
        return (
            query.get("model") in (None, job.model)
            and query.get("agent_id") in (None, job.agent_id)
            and (not statuses or job.status in statuses)
            and (after is None or job.created_at >= after)
            and owner in (None, job.owner)
            and metadata.items() <= (job.metadata or {}).items()
        )

    return matches


def _described(job: StoredBatch) -> dict[str, Any]:
    return {
        "id": job.id,
        "object": "batch",
        "input_files": job.input_files,
        "endpoint": job.endpoint,
        "model": job.model,
        "agent_id": job.agent_id,
        "metadata": job.metadata,
        "errors": job.errors,
        "status": job.status,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "completed_at": job.completed_at,
        "total_requests": job.total,
        "completed_requests": job.succeeded + job.failed,
        "succeeded_requests": job.succeeded,
        "failed_requests": job.failed,
        "output_file": job.output_file,
        "error_file": job.error_file,
        "outputs": None,
    }
