"""What becomes of rows whose request brought no answer: they are sent again, alone, or fail. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from labelmill.contracts.errors import (
    CredentialsRefused,
    LabelmillError,
    MalformedAnswer,
    Permanent,
    RemoteFailed,
    RemoteUnavailable,
    RequestRefused,
    UnusableContent,
)
from labelmill.contracts.usage import Usage
from labelmill_worker.inference.bisection import REFUSED_TEXTS
from labelmill_worker.inference.outcomes import RowFailed

MAX_TRIES = 8  #: Of a row, in as many remote batches.
#: Jobs, one after the other, that Mistral ended as failed without a line, of a batch of which nothing was answered.
MAX_FAILED_JOBS = 3
MAX_UNUSABLE_TRIES = 3  #: Of a row to which a chat model said nothing usable: each of them is paid.


@dataclass(frozen=True, slots=True)
class LineFailure:
    """A line without an answer. `usage`: what is to be paid for it all the same."""

    error: LabelmillError
    usage: Usage | None = None


@dataclass
class ChunkHistory:
    """What is known of a chunk's rows that were sent and not answered."""

    single: set[int] = field(default_factory=set)  #: To be sent one text a request.
    tries: dict[int, int] = field(default_factory=dict)  #: row → remote batches that failed it

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """As it is stored with the chunk."""
        return cls(set(stored.get("single", ())), {int(row): tries for row, tries in stored.get("tries", {}).items()})

    def to_json(self, rows: Iterable[int]) -> dict[str, Any] | None:
        """What is worth storing of those rows, which are still to be sent."""
        kept = set(rows)
        single, tries = sorted(self.single & kept), {row: n for row, n in self.tries.items() if row in kept}
        return {"single": single, "tries": tries} if single or tries else None

    def judge(
        self, rows: Sequence[int], failure: LineFailure | None, *, of_list: bool, missing: LabelmillError | None
    ) -> list[RowFailed]:
        """The rows of one request that fail now; the others are sent again. `failure`: None where no line came of it,
        which counts as a try that failed by `missing`, or as none without that. `of_list`: it held several texts."""
        if failure is None:
            return [] if missing is None else self._after_try(rows, missing, MAX_TRIES)
        error = failure.error
        if of_list and isinstance(error, RequestRefused | MalformedAnswer):
            self.single.update(rows)
            return []
        if isinstance(error, RequestRefused):
            return [RowFailed(row, error) for row in rows]
        max_tries = MAX_UNUSABLE_TRIES if isinstance(error, UnusableContent) else MAX_TRIES
        return self._after_try(rows, error, max_tries)

    def _after_try(self, rows: Sequence[int], error: LabelmillError, max_tries: int) -> list[RowFailed]:
        failed = []
        for row in rows:
            self.tries[row] = self.tries.get(row, 0) + 1
            if self.tries[row] >= max_tries:
                failed.append(RowFailed(row, error))
        return failed


def no_result(words: str) -> LabelmillError:
    """The error of a row of which no line came. `words`: what Mistral says of the job as a whole, if anything."""
    said = f": {words}" if words else ""
    return RemoteUnavailable(f"Mistral's batch jobs brought no result for this text{said}")


def refusal_of_all(failures: Sequence[LineFailure], *, lists: int) -> LabelmillError | None:
    """Why the batch is refused as a whole, by the lines of a remote batch of which none was answered; None: it is not.
    `lists`: how many of them held several texts; refused for their content, they say nothing of single texts."""
    lasting = [failure.error for failure in failures if isinstance(failure.error, Permanent)]
    if len({str(error) for error in lasting}) != 1:
        return None
    if len(lasting) < min(len(failures), REFUSED_TEXTS):
        return None  # faults that pass, such as a 429, say nothing; too few lines are left that do
    error = lasting[0]
    if isinstance(error, CredentialsRefused | RemoteFailed):
        return error
    return error if isinstance(error, RequestRefused) and len(lasting) > 1 and not lists else None
