"""The stand-in's files and fine-tuning jobs, as far as a training needs them, and what may become of a job."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import Any

import orjson
from aiohttp import web

STEP_S = 0.3  #: A job stays in each status so long.
ENDS = ("FAILED", "CANCELLED", "GONE")  #: What fate may have in store for a job; GONE: it is no longer known.


class RemoteJobs:
    """Knows every file and job. `fate`: how jobs end that have not ended yet, once they run."""

    def __init__(self) -> None:
        self.created: Counter[str] = Counter()  #: By training file's name.
        self.started: Counter[str] = Counter()
        self.fate: str | None = None
        self._files: dict[str, dict[str, Any]] = {}
        self._contents: dict[str, bytes] = {}
        self._jobs: dict[str, dict[str, Any]] = {}

    def reset(self) -> None:
        """Forget what was counted. Files and jobs stay."""
        self.created, self.started, self.fate = Counter(), Counter(), None

    def targets_of(self, model: str) -> tuple[str, ...] | None:
        """The targets of a model that one of these jobs made; None: there is no such model."""
        job = self._jobs.get(model.rpartition(":")[2])
        return tuple(target["name"] for target in job["targets"]) if job else None

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        jobs = "/v1/fine_tuning/jobs"
        return [
            web.post("/v1/files", self._upload),
            web.get("/v1/files", self._list_files),
            web.get("/v1/files/{id}/content", self._download),
            web.delete("/v1/files/{id}", self._delete_file),
            web.post(jobs, self._create_job),
            web.get(jobs, self._list_jobs),
            web.get(f"{jobs}/{{id}}", self._get_job),
            web.post(f"{jobs}/{{id}}/start", self._start_job),
            web.post(f"{jobs}/{{id}}/cancel", self._cancel_job),
            web.get("/v1/models", self._models),
        ]

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        upload = form["file"]
        assert isinstance(upload, web.FileField)  # noqa: S101 - a form's file
        if form.get("visibility") != "user" or not str(form.get("expiry", "")).isdecimal():
            return answer({"message": "texts that everybody may read, for ever"}, 422)
        file_id = self.keep(upload.filename, str(form["purpose"]), upload.file.read())
        return answer(self._files[file_id])

    def keep(self, name: str, purpose: str, content: bytes) -> str:
        """Keep a file. Returns its id."""
        entry: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "sample_type": "batch_request" if purpose == "batch" else "instruct",
            "source": "upload",
        }
        self._files[entry["id"]], self._contents[entry["id"]] = entry, content
        return str(entry["id"])

    def content_of(self, file_id: str) -> bytes | None:
        """None: there is no such file."""
        return self._contents.get(file_id)

    def forget(self, file_id: str) -> None:
        """A file is gone."""
        self._files.pop(file_id, None)
        self._contents.pop(file_id, None)

    async def _download(self, request: web.Request) -> web.Response:
        content = self.content_of(request.match_info["id"])
        if content is None:
            return answer({"message": "no such file"}, 404)
        return web.Response(body=content, content_type="application/octet-stream")

    async def _list_files(self, request: web.Request) -> web.Response:
        wanted = request.query.get("search", "")
        purpose = request.query.get("purpose")
        entries = self._files.values()
        found = [one for one in entries if wanted in one["filename"] and purpose in (None, one["purpose"])]
        return answer({"data": _page(request, found), "object": "list", "total": len(found)})

    async def _delete_file(self, request: web.Request) -> web.Response:
        found = self._files.get(request.match_info["id"])
        if found is None:
            return answer({"message": "no such file"}, 404)
        self.forget(found["id"])
        return answer({"id": found["id"], "object": "file", "deleted": True})

    async def _create_job(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        training_file = body["training_files"][0]["file_id"]
        if training_file not in self._files:
            return answer({"message": "no such file"}, 404)
        self.created[self._files[training_file]["filename"]] += 1
        job = {
            "id": str(uuid.uuid4()),
            "made": time.monotonic(),
            "started": None,
            "end": None,
            "training_files": [training_file],
            "model": body["model"],
            "auto_start": body.get("auto_start", True),
            "created_at": int(time.time()),
            "targets": body["classifier_targets"],
        }
        self._jobs[job["id"]] = job
        return answer(self._shown(job))

    async def _list_jobs(self, request: web.Request) -> web.Response:
        jobs = [self._shown(job) for job in reversed(self._jobs.values()) if self._status(job) != "GONE"]
        return answer({"data": _page(request, jobs), "object": "list", "total": len(jobs)})

    async def _get_job(self, request: web.Request) -> web.Response:
        job = self._jobs.get(request.match_info["id"])
        if job is None or self._status(job) == "GONE":
            return answer({"message": "no such job"}, 404)
        return answer(self._shown(job))

    async def _start_job(self, request: web.Request) -> web.Response:
        job = self._jobs[request.match_info["id"]]
        if self._status(job) != "VALIDATED":
            return answer({"message": f"job is {self._status(job)}"}, 400)
        job["started"] = time.monotonic()
        self.started[self._files[job["training_files"][0]]["filename"]] += 1
        return answer(self._shown(job))

    async def _cancel_job(self, request: web.Request) -> web.Response:
        job = self._jobs[request.match_info["id"]]
        job["end"] = job["end"] or "CANCELLED"
        return answer(self._shown(job))

    async def _models(self, request: web.Request) -> web.Response:
        del request
        return answer({"object": "list", "data": []})

    def _status(self, job: dict[str, Any]) -> str:
        if job["end"] is None and job["started"] is not None:
            runs_s = time.monotonic() - job["started"]
            if self.fate is not None and runs_s > STEP_S:
                job["end"] = self.fate
            elif runs_s > 2 * STEP_S:
                job["end"] = "SUCCESS"
        if job["end"] is not None:
            return str(job["end"])
        if job["started"] is not None:
            return "RUNNING"
        return ("QUEUED", "VALIDATING", "VALIDATED")[min(2, int((time.monotonic() - job["made"]) / STEP_S))]

    def _shown(self, job: dict[str, Any]) -> dict[str, Any]:
        status = self._status(job)
        shown = {
            "id": job["id"],
            "object": "job",
            "job_type": "classifier",
            "status": status,
            "model": job["model"],
            "auto_start": job["auto_start"],
            "created_at": job["created_at"],
            "modified_at": job["created_at"],
            "training_files": job["training_files"],
            "validation_files": [],
            "hyperparameters": {},
            "integrations": [],
            "events": [],
            "checkpoints": [],
            "classifier_targets": [],
        }
        if status in ("VALIDATED", "RUNNING", "SUCCESS"):
            shown["metadata"] = {
                "cost": 1.0,
                "cost_currency": "EUR",
                "expected_duration_seconds": 1,
                "train_tokens_per_step": 1,
                "train_tokens": 100,
                "data_tokens": 100,
            }
        if status == "SUCCESS":
            shown["fine_tuned_model"] = f"ft:classifier:chaos:{job['id']}"
        return shown


def answer(document: Any, status: int = 200) -> web.Response:
    """An answer in JSON."""
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/json")


def _page(request: web.Request, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    number, size = int(request.query.get("page", 0)), int(request.query.get("page_size", 100))
    return entries[number * size : (number + 1) * size]
