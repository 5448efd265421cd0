"""Idempotency keys: one key stands for one job, of whatever kind, whose request never changes.

The key of a cancelled job is free: the next submission under it makes a new job. So is the key of a batch whose input
was refused. Every other job keeps its key. `keys` has what batches need as well, for their rows are a part of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import literal, select, union_all, update
from sqlalchemy.engine import Connection

from labelmill.contracts.bounds import check_name, fault_of_metadata
from labelmill.contracts.errors import InvalidInput, KeyTaken
from labelmill.contracts.field_names import named
from labelmill.contracts.ids import Kind
from labelmill.contracts.job_kinds import KINDS, moves_to
from labelmill.core.database.name_locks import lock_name
from labelmill.core.jobs.tables import TABLE_OF
from labelmill.services.submissions.accepted import Accepted


@dataclass(frozen=True)
class KeyedJob:
    """The job that a key stands for. `request_digest`: of the request that made it; of a batch, which is compared by
    its columns, only of what these do not keep."""

    id: str
    kind: Kind
    state: str
    request_digest: str | None

    def taken(self, difference: str) -> KeyTaken:
        """The error for a request under its key that differs from it."""
        cancelled = KINDS[self.kind].cancelled
        can_be_cancelled = cancelled is not None and moves_to(KINDS[self.kind].states(self.state), cancelled)
        return KeyTaken(self.id, difference, can_be_cancelled=can_be_cancelled)


def check_identity(key: str | None, metadata: Mapping[str, str]) -> None:
    """Raise InvalidInput for what cannot be a key or metadata. Key None: there is none."""
    if key is not None:
        check_name(named("idempotency_key"), key)
    check_metadata(metadata)


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raise InvalidInput for what cannot be metadata."""
    if fault := fault_of_metadata(metadata):
        raise InvalidInput(f"{named('metadata')} {fault}")


def digest_of_request(kind: Kind, **fields: Any) -> str:
    """A digest of what was asked for. Options that have their default are left out of `fields`, so that a version with
    more options computes the same one."""
    request = json.dumps([kind.value, fields], sort_keys=True)
    return hashlib.blake2b(request.encode(), digest_size=16).hexdigest()


def find_by_key(connection: Connection, key: str, kind: Kind) -> KeyedJob | None:
    """The job that the key stands for; None: there is none. The key is locked until the end of this transaction, so of
    several submissions at the same time one makes the job, and the others find it.

    Raises KeyTaken if the job is of another kind.
    """
    lock_name(connection, "idempotency key", key)
    every = union_all(
        *(
            select(literal(of.value).label("kind"), table.id, table.state, table.request_digest).where(
                table.idempotency_key == key
            )
            for of, table in TABLE_OF.items()
        )
    )
    for row in connection.execute(every):
        job = KeyedJob(row.id, Kind(row.kind), row.state, row.request_digest)
        if _gave_up(connection, job):
            continue
        if job.kind is not kind:
            raise job.taken("another kind of request")
        return job
    return None


def _gave_up(connection: Connection, job: KeyedJob) -> bool:
    """Whether the job was cancelled: then its key is taken away."""
    cancelled, table = KINDS[job.kind].cancelled, TABLE_OF[job.kind]
    if cancelled is None or job.state != cancelled.value:
        return False
    is_cancelled = (table.id == job.id) & (table.state == cancelled.value)
    return bool(connection.execute(update(table).where(is_cancelled).values(idempotency_key=None)).rowcount)


def accepted_before(connection: Connection, kind: Kind, key: str | None, digest: str | None) -> Accepted | None:
    """The job of an earlier submission of the same request under this key; None: there is none, or there is no key.
    Raises KeyTaken if the key stands for another request."""
    if key is None or (job := find_by_key(connection, key, kind)) is None:
        return None
    if job.request_digest != digest:
        raise job.taken("another request")
    return Accepted(job.id, kind, job.state, has_messages=False)


def keyed(key: str | None, digest: str | None) -> Mapping[str, str | None]:
    """The columns of a new job that say which request its key stands for."""
    return {"idempotency_key": key, "request_digest": digest}
