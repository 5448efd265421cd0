"""The life of a batch job: QUEUED, RUNNING, SUCCESS, and the ways it can end early. Whatever ends it, what was answered
until then is in its files."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
from aiohttp import web

from labelmill_ops.emulator.answering import Answerer
from labelmill_ops.emulator.batch_lines import (
    BadBatchFileError,
    BatchLine,
    BatchResult,
    check_requests,
    read_requests,
    result_lines,
)
from labelmill_ops.emulator.config import EmulatorConfig
from labelmill_ops.emulator.fault_kinds import BATCH_LINE, Fault, FaultPlan
from labelmill_ops.emulator.replies import RefusedError
from labelmill_ops.emulator.stats import BATCH, Stats
from labelmill_ops.emulator.store import Store, StoredBatch

ENDED = frozenset({"SUCCESS", "FAILED", "TIMEOUT_EXCEEDED", "CANCELLED"})
_CHECK_EVERY_S = 0.05
_STEPS = 20  # in which a job's requests are answered, so that its counts move
_AT_ONCE = 4  # requests of one job
_RESULTS_KEPT_S = 24 * 3600
_WITHOUT_RESULTS = frozenset({"batch-without-files", "batch-results-gone"})
_EARLY_ENDS = {"batch-expires": "TIMEOUT_EXCEEDED", "batch-fails": "FAILED", "batch-cancelled": "CANCELLED"}


class _Cancelled(Exception):
    """The job was cancelled, or is gone."""


@dataclass
class _Results:
    """Lines of both files, as they are made."""

    output: list[bytes] = field(default_factory=list)
    errors: list[bytes] = field(default_factory=list)


class BatchRunner:
    """Runs every job as a task of the server's event loop."""

    def __init__(
        self,
        config: EmulatorConfig,
        store: Store,
        plan: FaultPlan,
        stats: Stats,
        answerers: Mapping[str, Answerer],
    ) -> None:
        """Take nothing up yet: `resume` does, once the loop runs."""
        self._config, self._store, self._plan, self._stats = config, store, plan, stats
        self._answerers = answerers
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def endpoints(self) -> frozenset[str]:
        """The endpoints that a job can be for."""
        return frozenset(self._answerers)

    def resume(self) -> None:
        """Take up the jobs that a restart interrupted, from their beginning."""
        for job in self._store.batches.values():
            if job.status == "CANCELLATION_REQUESTED":
                self._end(job, "CANCELLED", _Results())
            elif job.status not in ENDED:
                job.status, job.succeeded, job.failed = "QUEUED", 0, 0
                self._spawn(job)

    async def close(self) -> None:
        """Stop all jobs where they are; a state folder keeps them for `resume`."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def create(self, job: StoredBatch) -> None:
        """Queue a new job. Its fate, if a fault has one for it, is decided here."""
        if fault := self._plan.draw("create-batch", job=True):
            job.fate, job.fate_parameter = fault.kind, fault.parameter
            self._stats.faults[fault.kind] += 1
        self._stats.batches_created += 1
        self._store.save_batch(job)
        self._spawn(job)

    def cancel(self, job: StoredBatch) -> None:
        """Ask a job to end; one that has ended keeps its end."""
        if job.status not in ENDED:
            self._move(job, "CANCELLATION_REQUESTED")

    def _spawn(self, job: StoredBatch) -> None:
        self._tasks[job.id] = asyncio.get_running_loop().create_task(self._run(job))

    async def _run(self, job: StoredBatch) -> None:
        results = _Results()
        try:
            await self._wait(job, self._config.batch_queue_s)
            await self._stall(job)
            lines = await asyncio.to_thread(self._read, job)
            job.total, job.started_at = len(lines), int(time.time())
            self._move(job, "RUNNING")
            await self._answer(job, lines, results)
            await self._stall(job)
            self._end(job, _EARLY_ENDS.get(job.fate or "", "SUCCESS"), results)
        except _Cancelled:
            with contextlib.suppress(_Cancelled):
                await self._stall(job)
            if job.id in self._store.batches:
                self._end(job, "CANCELLED", results)
        except BadBatchFileError as error:
            self._end(job, "FAILED", results, str(error))
        except Exception as error:  # noqa: BLE001 - a job that ends without a status would be polled for ever
            self._end(job, "FAILED", results, f"{type(error).__name__}: {error}")

    def _read(self, job: StoredBatch) -> list[BatchLine]:
        if job.requests is not None:
            lines = [BatchLine(one.get("custom_id"), one["body"]) for one in job.requests]
            check_requests(lines)
            return lines
        contents = []
        for file_id in job.input_files:
            try:
                contents.append(self._store.content_of(file_id))
            except KeyError as error:
                message = f"file {file_id} was deleted"
                raise BadBatchFileError(message) from error
        return read_requests(contents)

    async def _answer(self, job: StoredBatch, lines: list[BatchLine], results: _Results) -> None:
        """Answer the requests in some order, spread over the time that the job is to take."""
        share = float(job.fate_parameter or 1) if job.fate in _EARLY_ENDS else 1.0
        order = random.Random(job.id).sample(lines, len(lines))[: round(share * len(lines))]
        step = max(1, -(-len(lines) // _STEPS))
        began = time.monotonic()
        for start in range(0, len(order), step):
            batch = order[start : start + step]
            for first in range(0, len(batch), _AT_ONCE):
                answered = await asyncio.gather(
                    *(self._answer_line(job, line, results) for line in batch[first : first + _AT_ONCE])
                )
                job.succeeded += sum(answered)
                job.failed += len(answered) - sum(answered)
            due = began + self._config.batch_run_s * (start + len(batch)) / len(lines)
            await self._wait(job, due - time.monotonic())

    async def _answer_line(self, job: StoredBatch, line: BatchLine, results: _Results) -> bool:
        fault = self._plan.draw(BATCH_LINE)
        if fault is not None:
            self._stats.faults[fault.kind] += 1
        result = await self._result(job, line, fault)
        made = result_lines(result, fault)
        (results.output if result.is_answer else results.errors).extend(made)
        return result.is_answer

    async def _result(self, job: StoredBatch, line: BatchLine, fault: Fault | None) -> BatchResult:
        if fault is not None and fault.kind in ("line-failed", "line-refused"):
            return _failed(line, int(fault.parameter or 500), "the emulator was told to fail this request")
        if job.fate == "batch-lists-refused" and isinstance(line.body.get("input"), list):
            return _failed(line, 422, "Input should be a valid string")
        try:
            answered = await self._answerers[job.endpoint]({"model": job.model} | line.body)
        except RefusedError as refused:
            return BatchResult(line.custom_id, refused.status, orjson.dumps(refused.body))
        self._stats.bill(BATCH, answered.texts, answered.tokens)
        if (fault is not None and fault.kind != "line-repeated") or job.fate in _WITHOUT_RESULTS:
            self._stats.spoil(answered.texts)
        return BatchResult(line.custom_id, 200, answered.payload)

    async def _stall(self, job: StoredBatch) -> None:
        """Stay in a status for ever, if that is the job's fate."""
        stuck_in = job.fate_parameter if job.fate == "batch-stuck" else None
        while job.status == stuck_in and job.id in self._store.batches:  # noqa: ASYNC110 - a request changes the status
            await asyncio.sleep(_CHECK_EVERY_S)
        if job.status == "CANCELLATION_REQUESTED" or job.id not in self._store.batches:
            raise _Cancelled

    async def _wait(self, job: StoredBatch, seconds: float) -> None:
        """Raises _Cancelled when the job is cancelled meanwhile."""
        until = time.monotonic() + seconds
        while True:
            if job.status == "CANCELLATION_REQUESTED" or job.id not in self._store.batches:
                raise _Cancelled
            left_s = until - time.monotonic()
            await asyncio.sleep(min(max(left_s, 0), _CHECK_EVERY_S))
            if left_s <= 0:
                return

    def _end(self, job: StoredBatch, status: str, results: _Results, reason: str | None = None) -> None:
        missing = job.fate_parameter if job.fate == "batch-without-files" else None
        job.outputs = [*results.output, *results.errors] if job.requests is not None else None
        job.output_file = self._result_file(job, "output", results.output, is_missing=missing in ("output", "both"))
        job.error_file = self._result_file(job, "errors", results.errors, is_missing=missing in ("errors", "both"))
        if job.fate == "batch-results-gone":
            for file_id in filter(None, (job.output_file, job.error_file)):
                self._store.delete_file(file_id)
        if reason is not None:
            job.errors = [{"message": reason, "count": 1}]
        elif status == "FAILED":
            job.errors = [{"message": "the emulator was told to fail this job", "count": 1}]
        job.completed_at = int(time.time())
        self._move(job, status)

    def _result_file(self, job: StoredBatch, kind: str, lines: list[bytes], *, is_missing: bool) -> str | None:
        if not lines or is_missing:
            return None
        file = self._store.add_file(
            f"{job.id}-{kind}.jsonl",
            "batch",
            b"".join(line + b"\n" for line in lines),
            source="mistral",
            sample_type="batch_result" if kind == "output" else "batch_error",
            expires_at=int(time.time()) + _RESULTS_KEPT_S,
        )
        return file.id

    def _move(self, job: StoredBatch, status: str) -> None:
        job.status = status
        if job.id in self._store.batches:
            self._store.save_batch(job)


def _failed(line: BatchLine, status: int, message: str) -> BatchResult:
    return BatchResult(
        line.custom_id, status, orjson.dumps({"object": "error", "message": message, "raw_status_code": status})
    )


BATCHES = web.AppKey("batches", BatchRunner)
