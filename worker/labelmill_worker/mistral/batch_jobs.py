"""`BatchJobs` on Mistral's own SDK, but for downloads: those are read as they arrive, whatever type of content the
server calls them, and nobody holds a whole file in memory. One instance serves every thread of a process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mistralai.client.models import BatchJob

from labelmill.contracts.errors import BillingRequired, RemoteFailed, RemoteUnavailable, RequestRefused
from labelmill.core.settings import Settings
from labelmill_worker.mistral.decoding import batch_of
from labelmill_worker.mistral.remote_files import RemoteFiles
from labelmill_worker.mistral.result_lines import lines_of, read_entry, read_line
from labelmill_worker.mistral.sdk_requests import READ_ATTEMPTS, SdkRequests
from labelmill_worker.ports.batch_jobs import CANCELLATION_REQUESTED, NumberedCall, RemoteBatch, ResultLine
from labelmill_worker.ports.control_plane import RemoteFile
from labelmill_worker.ports.inference import Endpoint

_JOBS = "/v1/batch/jobs"
_CLOCKS_APART = timedelta(hours=1)  #: By so much Mistral's clock may be behind the caller's.


class SdkBatchJobs:
    """Batch jobs and their files at Mistral."""

    def __init__(self, requests: SdkRequests) -> None:
        self._requests = requests
        self._files = RemoteFiles(requests, "batch")
        self._jobs = requests.sdk.batch.jobs  # imported here, so that no two threads do it at once

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    @classmethod
    def from_settings(cls, settings: Settings, *, read_attempts: int = READ_ATTEMPTS) -> SdkBatchJobs:
        """Wire the adapter with the fleet's rate limit. Raises CredentialsRefused when there is no usable key."""
        return cls(SdkRequests.from_settings(settings, read_attempts=read_attempts))

    def close(self) -> None:
        """Close the connections."""
        self._requests.close()

    # files

    def upload(self, path: Path, name: str, expiry_hours: int) -> str:
        """See `BatchJobs`. Raises InvalidInput when the file cannot be read."""
        with _billing_named():
            return self._files.upload(path, name, expiry_hours)

    def find_files(self, name: str) -> list[RemoteFile]:
        return self._files.find(name)

    def delete_file(self, file_id: str) -> None:
        self._files.delete(file_id)

    def results(self, file_id: str) -> Iterator[ResultLine]:
        response = self._requests.read(lambda: self._requests.open(f"/v1/files/{quote(file_id, safe='')}/content"))
        with contextlib.closing(response):
            for line in lines_of(self._requests.parts_of(response)):
                yield read_line(line, self._requests.secrets)

    # jobs

    def create(
        self,
        endpoint: Endpoint,
        model: str,
        *,
        file_id: str | None = None,
        calls: Sequence[NumberedCall] = (),
        metadata: Mapping[str, str],
        timeout_hours: int,
    ) -> RemoteBatch:
        """See `BatchJobs`."""
        source: dict[str, Any] = {"input_files": [file_id]} if file_id is not None else {}
        if calls:
            source["requests"] = [{"custom_id": one.custom_id, "body": dict(one.call.body)} for one in calls]
        with _billing_named():
            return self._requests.once(
                lambda: self._job(
                    self._jobs.create(
                        endpoint=endpoint.value,
                        model=model,
                        metadata=dict(metadata),
                        timeout_hours=timeout_hours,
                        **source,
                    )
                )
            )

    def find(self, metadata: Mapping[str, str], created_after: float) -> list[RemoteBatch]:
        since = datetime.fromtimestamp(created_after, UTC) - _CLOCKS_APART

        # The metadata are compared here: that the server filters by them is not documented.
        def decode(entry: Mapping[str, Any]) -> RemoteBatch | None:
            theirs = entry.get("metadata")
            is_ours = isinstance(theirs, dict) and metadata.items() <= theirs.items()
            return self._job(BatchJob.model_validate(entry)) if is_ours else None

        with _billing_named():
            ours = list(
                self._requests.listed(_JOBS, decode, {"created_after": since.isoformat().replace("+00:00", "Z")})
            )
        ours.reverse()  # of one second, too, the oldest comes first
        ours.sort(key=lambda job: job.created_at)
        return ours

    def get(self, job_id: str) -> RemoteBatch:
        return self._requests.read(lambda: self._job(self._jobs.get(job_id=job_id)))

    def cancel(self, job_id: str) -> RemoteBatch:
        try:
            return self._requests.once(lambda: self._job(self._jobs.cancel(job_id=job_id)))
        except (RequestRefused, RemoteUnavailable):
            job = self.get(job_id)  # it may have ended in this moment, or an earlier request arrived
            if job.has_ended or job.status == CANCELLATION_REQUESTED:
                return job
            raise

    def _job(self, answer: Any) -> RemoteBatch:
        return batch_of(answer, self._requests.secrets)

    def delete_job(self, job_id: str) -> None:
        with contextlib.suppress(RemoteFailed):  # gone already: what was asked for
            self._requests.once(lambda: self._jobs.delete(job_id=job_id))

    def inline_results(self, job_id: str) -> Iterator[ResultLine]:
        outputs = self._requests.read(lambda: self._jobs.get(job_id=job_id, inline=True).outputs)
        for entry in outputs if isinstance(outputs, list) else ():
            yield read_entry(entry, self._requests.secrets)

    def check_billing(self) -> None:
        with _billing_named():
            self._requests.read(lambda: self._requests.entries(_JOBS, {"page": 0, "page_size": 1}))


@contextlib.contextmanager
def _billing_named() -> Iterator[None]:
    """Name the remedy where the account has no billing for batch jobs."""
    try:
        yield
    except BillingRequired as error:
        raise BillingRequired(
            "Mistral runs batch jobs only for workspaces with billing: enable it in Mistral's console, "
            f"or use --mode realtime ({error.message})"
        ) from error
