"""What workers bring of their chunks on its way into SQL: guarded by each chunk's lease, all in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sqlalchemy import Text, bindparam, cast, exists, func, null, select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.states import BatchState
from labelmill.contracts.usage import Usage
from labelmill.core.database import writing
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import BatchRow, BudgetRow
from labelmill.core.jobs.chunk_transitions import COUNTERS, RECORD
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.money.prices import LISTED, PriceList
from labelmill_worker.store.budgets import Settlement, month_scope, settle
from labelmill_worker.store.chunks import Claim
from labelmill_worker.store.ledger import Charged, cost_in_nanos, write_lines
from labelmill_worker.store.predictions import PredictionBlock, insert_predictions
from labelmill_worker.store.vectors import keep_vectors

_ERROR_COLUMNS = ("batch_no", "row", "external_id", "code", "message")


@dataclass
class ChunkProgress:
    """What one transaction records: predictions, error tuples, and how many rows (with their duplicates) they are."""

    blocks: list[PredictionBlock] = field(default_factory=list)
    errors: list[tuple[Any, ...]] = field(default_factory=list)
    labelled: int = 0
    abstained: int = 0
    failed: int = 0
    requests: int = 0
    tokens: int = 0
    cached: int = 0  #: Of those labelled and abstained, answered by an earlier batch.
    usages: list[Usage] = field(default_factory=list)  #: What is to be paid for.
    vectors: list[tuple[bytes, bytes]] = field(default_factory=list)  #: `(digest, data)` to keep.

    @property
    def has_rows(self) -> bool:
        """Whether any row got its answer or error."""
        return bool(self.blocks or self.errors or self.vectors)


@dataclass(frozen=True, eq=False, slots=True)
class Entry:
    """One chunk's part of a transaction; `done` closes the chunk with it."""

    claim: Claim
    progress: ChunkProgress
    done: bool


class Standing(Enum):
    """How a chunk stands after a transaction."""

    LOST = "another worker may have the chunk by now; nothing was written"
    WANTED = "written; the batch runs"
    UNWANTED = "written; the batch runs no more"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a transaction did, once it is committed."""

    standings: Sequence[Standing]
    transaction: str | None  #: What PostgreSQL knows it by.


_NOTHING = Settlement(0, 0)
_BATCH_STATE = select(BatchRow.state).where(BatchRow.no == bindparam("of_batch")).scalar_subquery().label("batch_state")
#: Whether this month has a budget: told with the guard, so that installations without a cap pay no statement for it.
_HAS_MONTH = exists().where(BudgetRow.scope == bindparam("of_month")).label("has_month")
_TRANSACTION = cast(func.pg_current_xact_id(), Text).label("transaction")
_GUARD_ON_POSTGRES = RECORD.returning(_BATCH_STATE, _TRANSACTION, _HAS_MONTH)
_GUARD_ON_SQLITE = RECORD.returning(_BATCH_STATE, null(), _HAS_MONTH)


def record_entries(
    connection: Connection, entries: Sequence[Entry], lease_s: float, prices: PriceList = LISTED
) -> Recorded:
    """Write the answers of several chunks, renew their leases and add what was paid for to the ledger, within the
    connection's transaction.

    A chunk whose lease was lost gets no row written; the others do. What its requests cost is written all the same. Few
    statements, whatever the number of chunks: with one text a request a transaction carries some fifteen rows, and each
    way to the database and back takes the slots of requests that could run meanwhile.
    """
    # in order: two workers never lock crosswise
    in_order = sorted(entries, key=lambda entry: (entry.claim.batch_no, entry.claim.number))
    dialect = dialect_of(connection)
    guard = dialect.choose(sqlite=_GUARD_ON_SQLITE, postgres=_GUARD_ON_POSTGRES)
    month = month_scope()
    answers = dialect.rows_at_once(connection, guard, [_guard_values(entry, lease_s, month) for entry in in_order])
    standings = {entry: _standing(row and row[0]) for entry, row in zip(in_order, answers, strict=True)}
    kept = [entry for entry in entries if standings[entry] is not Standing.LOST]
    insert_predictions(connection, [(entry.claim.batch_no, block) for entry in kept for block in entry.progress.blocks])
    errors = [error for entry in kept for error in entry.progress.errors]
    if errors:
        dialect.bulk_insert(connection, "error_rows", _ERROR_COLUMNS, errors)
    keep_vectors(connection, [(entry.claim.model.no, *vector) for entry in kept for vector in entry.progress.vectors])
    has_month = any(row is None or row[2] for row in answers)  # a chunk that was lost does not tell
    charged_already = _settle(connection, entries, standings, prices, month if has_month else None)
    charges = (
        Charged(entry.claim.charged_to, entry.claim.batch_id, usage)
        for entry in entries
        if entry.claim.token not in charged_already
        for usage in entry.progress.usages
    )
    write_lines(connection, charges, prices)
    transactions = [row[1] for row in answers if row]
    return Recorded([standings[entry] for entry in entries], transactions[0] if transactions else None)


def _settle(
    connection: Connection,
    entries: Sequence[Entry],
    standings: Mapping[Entry, Standing],
    prices: PriceList,
    month: str | None,
) -> frozenset[str]:
    """Settle what claims with a cap had reserved, and charge what they had not. `month`: the scope of the month if it
    has a budget, which counts what claims without a cap spend too. Returns the tokens of those whose requests were
    charged already, as those of a dead worker."""
    capped = [entry for entry in entries if entry.claim.caps or month is not None]
    if not capped:
        return frozenset()
    settlements: dict[str, Settlement] = {}
    unreserved: Counter[str] = Counter()
    for entry in capped:
        held = spent = 0
        for usage in entry.progress.usages:
            cost = cost_in_nanos(usage, prices)
            if usage.held:
                held, spent = held + usage.held, spent + cost
            else:
                scopes = {cap.scope for cap in entry.claim.caps}
                if month is not None:
                    scopes.add(month)
                unreserved.update(dict.fromkeys(scopes, cost))
        if held:
            settlements[entry.claim.holder] = settlements.get(entry.claim.holder, _NOTHING).plus(held, spent)
    ended = [entry.claim.token for entry in capped if entry.done and standings[entry] is not Standing.LOST]
    known = settle(connection, settlements, ended=ended, unreserved=unreserved, month=month)
    return frozenset(entry.claim.token for entry in capped if entry.claim.holder in settlements.keys() - known)


def _guard_values(entry: Entry, lease_s: float, month: str) -> dict[str, Any]:
    claim, progress = entry.claim, entry.progress
    return {f"more_{name}": getattr(progress, name) for name in COUNTERS} | {
        "of_batch": claim.batch_no,
        "of_chunk": claim.number,
        "under": claim.token,
        "done": entry.done,
        "progressed": progress.has_rows,
        "lease_s": lease_s,
        "of_month": month,
    }


def _standing(batch_state: str | None) -> Standing:
    if batch_state is None:
        return Standing.LOST
    return Standing.WANTED if batch_state == BatchState.RUNNING.value else Standing.UNWANTED


def record_progress(engine: Engine, claim: Claim, progress: ChunkProgress, lease_s: float, *, done: bool) -> bool:
    """Write one chunk's answers in a transaction of their own.

    Returns whether the batch still wants more work. Raises LeaseLost.
    """
    with writing(engine) as connection:
        (standing,) = record_entries(connection, [Entry(claim, progress, done)], lease_s).standings
    if standing is Standing.LOST:
        raise LeaseLost("the lease on the chunk was lost")
    return standing is Standing.WANTED
