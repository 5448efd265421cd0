"""What the product needs of Mistral's Batch API: files of calls go in, files of replies come back, hours later.

A line of a job's file is a custom id and a `Call`'s body; a line of its results is a custom id and a `Reply`'s
document, or why there is none. Every method raises errors of `labelmill.contracts.errors` and nothing else. What makes
something (`upload`, `create`) is sent once: a caller that got no answer looks for what the lost call made
(`find_files`, `find`) before it makes another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from labelmill_worker.ports.control_plane import RemoteFile
from labelmill_worker.ports.inference import Call, Endpoint

# Statuses of a batch job. Mistral may add others: a status that is not known here is polled on.
QUEUED = "QUEUED"
RUNNING = "RUNNING"
SUCCESS = "SUCCESS"
FAILED = "FAILED"
TIMEOUT_EXCEEDED = "TIMEOUT_EXCEEDED"
CANCELLATION_REQUESTED = "CANCELLATION_REQUESTED"
CANCELLED = "CANCELLED"

ENDED = frozenset({SUCCESS, FAILED, TIMEOUT_EXCEEDED, CANCELLED})  #: Nothing more comes; both files are to be read.


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch job as Mistral shows it. Counts are of requests, 0 until Mistral knows them; times are seconds since
    1970."""

    id: str
    status: str
    endpoint: str
    created_at: int
    metadata: Mapping[str, str]
    total_requests: int = 0
    succeeded_requests: int = 0
    failed_requests: int = 0
    output_file: str | None = None  #: File ids: either, both or neither may be there in any status that is an end.
    error_file: str | None = None
    errors: tuple[str, ...] = ()  #: What Mistral says of the job as a whole.
    started_at: int | None = None
    completed_at: int | None = None

    @property
    def has_ended(self) -> bool:
        """Whether its results, complete or not, can be read."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class NumberedCall:
    """A call and the id by which its result is found again."""

    custom_id: str
    call: Call


@dataclass(frozen=True, slots=True)
class ResultLine:
    """A line of an output or error file. `document` is the reply of a call that was answered, unchecked."""

    custom_id: str | None  #: None: the line does not say whose result it is.
    status: int | None  #: HTTP status of the call.
    document: Mapping[str, Any] | None
    error: str | None  #: In Mistral's words, without keys.


class BatchJobs(Protocol):
    """Batch jobs and their files at Mistral."""

    def upload(self, path: Path, name: str, expiry_hours: int) -> str:
        """Upload a JSONL file of calls, visible to the key's owner alone, deleted by Mistral after so many hours.
        Returns its id."""
        ...

    def find_files(self, name: str) -> list[RemoteFile]:
        """Uploaded files of exactly that name, for batch jobs."""
        ...

    def delete_file(self, file_id: str) -> None:
        """Delete a file, uploaded or of results; nothing happens when it is gone already."""
        ...

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
        """Create a job from a file or from calls in the request. It starts by itself and costs money. Ask `find` first.
        Raises BillingRequired when the account has no batch billing."""
        ...

    def find(self, metadata: Mapping[str, str], created_after: float) -> list[RemoteBatch]:
        """The jobs whose metadata hold all of these, the oldest first. `created_after`: seconds since 1970."""
        ...

    def get(self, job_id: str) -> RemoteBatch:
        """A job. Raises RemoteFailed when Mistral knows no such job."""
        ...

    def cancel(self, job_id: str) -> RemoteBatch:
        """Ask Mistral to stop a job; it ends later. Returns it as it is now: a job that had ended keeps its end."""
        ...

    def delete_job(self, job_id: str) -> None:
        """Delete a job that has ended, and with it the calls that were in its request: after that neither `get` nor
        `find` knows it. Nothing happens when it is gone already."""
        ...

    def results(self, file_id: str) -> Iterator[ResultLine]:
        """The lines of an output or error file, in the file's order, while they are downloaded. A line that is not
        a JSON object has neither id nor document. Raises RemoteFailed when the file is gone, RemoteUnavailable when the
        download breaks off: what was yielded before stays valid."""
        ...

    def inline_results(self, job_id: str) -> Iterator[ResultLine]:
        """The results of an ended job that names neither an output nor an error file, as far as Mistral shows them with
        the job itself. Raises RemoteFailed when Mistral knows no such job."""
        ...

    def check_billing(self) -> None:
        """Return if the account may create batch jobs, as far as it can be told without making one. Raises
        BillingRequired."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...
