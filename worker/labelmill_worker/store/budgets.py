"""Caps: what may be spent is reserved before it is, and settled when it was. Atomic over processes and hosts.

    reserve   before a request is sent, by an upper bound of its cost: one guarded UPDATE for each cap
    settle    in the transaction that records what came of it: the reservation goes, the cost stays
    release   what was reserved and not sent after all

A *holder* is whoever reserves: a claim of a chunk, by its lease token, or a job at Mistral, by a key of its own. What
a dead worker had reserved counts as spent once its lease is gone (`charge_dead_holders`): its requests may have been
paid for. Amounts are billionths of the currency. Locks are taken in one order: reservations, then budgets by scope.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, delete, exists, func, insert, select, update
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.errors import CapReached
from labelmill.contracts.states import ChunkState
from labelmill.core.database import reading, writing
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import (
    BatchRow,
    BudgetRow,
    ChunkRow,
    LedgerRow,
    ModelRow,
    ReservationRow,
    utc_now,
)
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.money.nanos import amount_of, nanos
from labelmill.core.money.prices import CURRENCY, PriceList
from labelmill_worker.store.ledger import FINE_TUNING, Charged, cost_in_nanos, write_lines

_MONTH = "month:"


@dataclass(frozen=True, slots=True)
class Cap:
    """A limit of what a job, or the installation in a month, may spend."""

    scope: str
    limit: int

    def reached(self, job_id: str | None = None) -> CapReached:
        """The error of what waits for a higher cap. `job_id`: what is to be retried, the batch or the
        training or evaluation whose own it is."""
        amount, retry = f"{amount_of(self.limit):g} {CURRENCY}", f"labelmill retry {job_id or 'ID'}"
        if self.scope.startswith(_MONTH):
            month = self.scope.removeprefix(_MONTH)
            return CapReached(
                f"the installation's cap of {amount} for {month} is reached (LABELMILL_MONTHLY_CAP): raise it or wait "
                f"for the next month, then `{retry}` goes on"
            )
        return CapReached(
            f"the cap of {amount} is reached, for the next request may cost more than is left: "
            f"`{retry} --max-cost AMOUNT` goes on, with AMOUNT for the whole job"
        )


def month_scope() -> str:
    """The scope of what the installation spends in this month of UTC. It has a budget once a worker with
    `LABELMILL_MONTHLY_CAP` has asked for it."""
    return f"{_MONTH}{utc_now():%Y-%m}"


def caps_of(job_id: str, max_cost: float | None, monthly_cap: float | None) -> tuple[Cap, ...]:
    """The caps of a job that is worked on now."""
    caps = []
    if max_cost is not None:
        caps.append(Cap(job_id, nanos(max_cost)))
    if monthly_cap is not None:
        caps.append(Cap(month_scope(), nanos(monthly_cap)))
    return tuple(sorted(caps, key=lambda cap: cap.scope))


class Holder(NamedTuple):
    """Who reserves. `chunk`: the batch's and the chunk's number where `key` is the lease token of a claim."""

    key: str
    chunk: tuple[int, int] | None = None


#: Is called in the transaction; raises where another worker may have taken the holder over.
Guard = Callable[[Connection], None]


def _unguarded(_: Connection) -> None:
    """Nobody else acts for the holder."""


class _Refused(Exception):
    def __init__(self, cap: Cap) -> None:
        self.cap = cap


def reserve(engine: Engine, caps: Sequence[Cap], holder: Holder, amount: int, guard: Guard = _unguarded) -> Cap | None:
    """Reserve an amount of every cap. Returns the cap that has less left, and nothing is reserved then; None: it is
    reserved. Raises LeaseLost when the holder's chunk is claimed under another token, and what `guard` raises."""
    try:
        with writing(engine) as connection:
            guard(connection)
            for cap in caps:
                _hold(connection, cap, holder, amount)
            for cap in caps:
                if not _take(connection, cap, amount):
                    raise _Refused(cap)
    except _Refused as refused:
        return refused.cap
    return None


def _hold(connection: Connection, cap: Cap, holder: Holder, amount: int) -> None:
    own = and_(ReservationRow.holder == holder.key, ReservationRow.scope == cap.scope)
    if connection.execute(update(ReservationRow).where(own).values(amount=ReservationRow.amount + amount)).rowcount:
        return
    batch_no, chunk = holder.chunk or (None, None)
    if holder.chunk is not None and not connection.scalar(select(_is_claimed(batch_no, chunk, holder.key))):
        raise LeaseLost("the lease on the chunk was lost")
    values = {"holder": holder.key, "scope": cap.scope, "amount": amount, "batch_no": batch_no, "chunk": chunk}
    connection.execute(insert(ReservationRow).values(values))


def _take(connection: Connection, cap: Cap, amount: int) -> bool:
    fits = BudgetRow.spent + BudgetRow.reserved + amount <= cap.limit
    of_cap = BudgetRow.scope == cap.scope
    take = update(BudgetRow).where(of_cap, fits).values(reserved=BudgetRow.reserved + amount)
    if connection.execute(take).rowcount:
        return True
    return _open(connection, cap) and bool(connection.execute(take).rowcount)


def _open(connection: Connection, cap: Cap) -> bool:
    """Make the budget of a cap that is asked for the first time: the ledger knows what was spent before. False: there
    was one."""
    if connection.scalar(select(BudgetRow.scope).where(BudgetRow.scope == cap.scope)) is not None:
        return False
    by_the_token = (LedgerRow.currency == CURRENCY) & (LedgerRow.mode != FINE_TUNING)
    before = connection.scalar(select(func.sum(LedgerRow.amount)).where(_lines_of(cap), by_the_token))
    values = {"scope": cap.scope, "spent": nanos(before or 0.0), "reserved": 0}
    connection.execute(dialect_of(connection).insert_or_ignore(BudgetRow).values(values))
    return True


def _lines_of(cap: Cap) -> ColumnElement[bool]:
    if cap.scope.startswith(_MONTH):
        return LedgerRow.day.startswith(cap.scope.removeprefix(_MONTH))
    return LedgerRow.job_id == cap.scope


class Settlement(NamedTuple):
    """What came of a part of a reservation."""

    held: int
    spent: int

    def plus(self, held: int, spent: int) -> Settlement:
        """With a further part."""
        return Settlement(self.held + held, self.spent + spent)


def settle(
    connection: Connection,
    settlements: Mapping[str, Settlement],
    *,
    ended: Sequence[str] = (),
    unreserved: Mapping[str, int] | None = None,
    month: str | None = None,
) -> frozenset[str]:
    """Replace reservations by what was spent, within the connection's transaction. `settlements`: by the holder's key;
    `ended`: holders that give the rest back too; `unreserved`: what was spent without a reservation, by scope; `month`:
    the scope that counts all of it, also what holders spend that have reserved nothing of it. Returns the holders that
    are known: what another one held was charged already, in full."""
    known = set()
    held: Counter[str] = Counter()
    spent: Counter[str] = Counter(unreserved)
    for key, settlement in sorted(settlements.items()):
        reduced = (
            update(ReservationRow)
            .where(ReservationRow.holder == key)
            .values(amount=ReservationRow.amount - settlement.held)
            .returning(ReservationRow.scope, ReservationRow.amount)
        )
        scopes = set()
        for scope, left in connection.execute(reduced).all():
            scopes.add(scope)
            over = max(0, -left)
            if over:
                _empty_reservation(connection, key, scope)
            held[scope] += settlement.held - over
            spent[scope] += settlement.spent
        if scopes:
            known.add(key)
            if month is not None and month not in scopes:
                spent[month] += settlement.spent
    if ended:
        for row in _end_reservations(connection, ReservationRow.holder.in_(ended)):
            held[row.scope] += row.amount
    _change_budgets(connection, held, spent)
    return frozenset(known)


def _empty_reservation(connection: Connection, key: str, scope: str) -> None:
    """More was settled than is reserved: what is missing must not be taken from what others have reserved."""
    own = and_(ReservationRow.holder == key, ReservationRow.scope == scope)
    connection.execute(update(ReservationRow).where(own).values(amount=0))


def release(engine: Engine, key: str, guard: Guard = _unguarded) -> None:
    """Give back all that a holder has reserved and not settled: nothing of it was sent, or will be."""
    with writing(engine) as connection:
        guard(connection)
        held = _end_reservations(connection, ReservationRow.holder == key)
        _change_budgets(connection, Counter({row.scope: row.amount for row in held}), Counter())


def _end_reservations(connection: Connection, which: ColumnElement[bool]) -> list[Any]:
    gone = delete(ReservationRow).where(which).returning(ReservationRow.scope, ReservationRow.amount)
    return list(connection.execute(gone).all())


def _change_budgets(connection: Connection, held: Mapping[str, int], spent: Mapping[str, int]) -> None:
    for scope in sorted({*held, *spent}):
        changes = {
            "reserved": BudgetRow.reserved - held.get(scope, 0),
            "spent": BudgetRow.spent + spent.get(scope, 0),
        }
        connection.execute(update(BudgetRow).where(BudgetRow.scope == scope).values(changes))


def is_reached(connection: Connection, cap: Cap, next_amount: int) -> bool:
    """Whether a cap has less left than the next request may cost, and nothing is reserved that could come back. Nothing
    can be reserved until the end of the transaction."""
    _open(connection, cap)
    locked = update(BudgetRow).where(BudgetRow.scope == cap.scope).values(spent=BudgetRow.spent)
    connection.execute(locked)
    is_reserved = exists().where(ReservationRow.scope == cap.scope, ReservationRow.amount > 0)
    over = BudgetRow.spent + BudgetRow.reserved + next_amount > cap.limit
    return bool(connection.scalar(select(over & ~is_reserved).where(BudgetRow.scope == cap.scope)))


def _is_claimed(batch_no: Any, chunk: Any, token: Any) -> ColumnElement[bool]:
    return exists().where(
        ChunkRow.batch_no == batch_no,
        ChunkRow.number == chunk,
        ChunkRow.state == ChunkState.CLAIMED.value,
        ChunkRow.lease_token == token,
    )


def least_left(engine: Engine, caps: Sequence[Cap]) -> tuple[Cap, int]:
    """The cap that has least left, and how much."""
    left = []
    with writing(engine) as connection:
        for cap in caps:
            _open(connection, cap)
            used = select(BudgetRow.spent + BudgetRow.reserved).where(BudgetRow.scope == cap.scope)
            left.append((cap, cap.limit - int(connection.scalar(used) or 0)))
    return min(left, key=lambda one: one[1])


def charge_holder(engine: Engine, key: str, batch_no: int, mode: str) -> None:
    """Count as spent all that a holder has reserved and not settled: it may have been paid for, and no answer will say
    what it cost."""
    with writing(engine) as connection:
        _charge(connection, _end_reservations(connection, ReservationRow.holder == key), batch_no, mode)


def charge_unreserved(connection: Connection, charged: Charged, prices: PriceList) -> None:
    """Count as spent what was reserved for by nobody, within the connection's transaction."""
    write_lines(connection, [charged], prices)
    cost = cost_in_nanos(charged.usage, prices)
    _change_budgets(connection, {}, {charged.job_id: cost, month_scope(): cost})


def charge_dead_holders(engine: Engine) -> int:
    """Count as spent what workers had reserved whose claim is gone: their requests may have been sent, and no answer
    will say what they cost. Returns the number of claims."""
    is_dead = ReservationRow.batch_no.is_not(None) & ~_is_claimed(
        ReservationRow.batch_no, ReservationRow.chunk, ReservationRow.holder
    )
    with reading(engine) as connection:
        dead = connection.execute(
            select(ReservationRow.holder, ReservationRow.batch_no).where(is_dead).distinct()
        ).all()
    for key, batch_no in dead:
        with writing(engine) as connection:
            _charge(connection, _end_reservations(connection, (ReservationRow.holder == key) & is_dead), batch_no)
    return len(dead)


def _charge(connection: Connection, ended: Sequence[Any], batch_no: int | None, mode: str = "realtime") -> None:
    held = Counter({row.scope: row.amount for row in ended})
    spent = Counter(held)
    if (amount := max(held.values(), default=0)) > 0:
        _write_estimate(connection, batch_no, amount, mode)
        spent.setdefault(month_scope(), amount)
    _change_budgets(connection, held, spent)


def _write_estimate(connection: Connection, batch_no: int | None, amount: int, mode: str = "realtime") -> None:
    batch = connection.execute(
        select(BatchRow.id, BatchRow.owner_id, ModelRow.remote_model)
        .join(ModelRow, ModelRow.no == BatchRow.model_no)
        .where(BatchRow.no == batch_no)
    ).first()
    if batch is None:
        return  # it was purged
    at = utc_now()
    counts: Iterable[str] = ("requests", "input_tokens", "output_tokens", "cached_tokens")
    line = {
        "at": at,
        "day": at.date().isoformat(),
        "job_id": batch.owner_id or batch.id,
        "batch_id": batch.id,
        "model": batch.remote_model or "",
        "mode": mode,
        "amount": amount_of(amount),
        "currency": CURRENCY,
        "estimated": True,
    }
    connection.execute(insert(LedgerRow).values(line | dict.fromkeys(counts, 0)))
