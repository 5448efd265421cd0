"""Runs all checks in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime

from labelmill.contracts.errors import LabelmillError
from labelmill.contracts.exit_codes import DATABASE_UNUSABLE
from labelmill.core.money.prices import MAX_AGE_DAYS, PRICES_AS_OF, age_days
from labelmill.core.redaction import secret_remover
from labelmill.core.settings import Settings
from labelmill.doctor.broker import BrokerResult, check_broker
from labelmill.doctor.checks import Check, Status, failed, ok, unknown, warning, within
from labelmill.doctor.connections import check_of
from labelmill.doctor.database import DatabaseResult, check_database
from labelmill.doctor.disk import check_storage
from labelmill.doctor.fleet import ANSWER_S, WorkerReplies, ask_workers, checks_of, checks_without_redis
from labelmill.doctor.fleet_records import check_worker_records
from labelmill.doctor.work import check_work

_BROKER_S, _DATABASE_S, _RECORDS_S, _DISK_S, _BUCKET_S = 12.0, 12.0, 20.0, 5.0, 15.0
_SKEW_S = 2.0


def examine(settings: Settings, mistral_s: float, say: Callable[[str], None]) -> list[Check]:
    """Run every check; `mistral_s`: how long Mistral may take. Never raises nor hangs. `say` is called before each
    step."""
    redact = secret_remover(settings)
    return [
        replace(check, summary=redact(" ".join(check.summary.split())), remedy=redact(check.remedy))
        for check in _checks(settings, mistral_s, say)
    ]


def exit_code_of(checks: list[Check]) -> int:
    """0: nothing failed · 7: the database · 5: a key was refused · 1: anything else."""
    codes = {check.exit_code for check in checks if check.status is Status.FAILED}
    return next((code for code in (7, 5, 1) if code in codes), 0)


def _checks(settings: Settings, mistral_s: float, say: Callable[[str], None]) -> Iterator[Check]:
    say("asking Redis")
    try:
        broker = within(_BROKER_S, lambda: check_broker(settings.broker_url))
    except TimeoutError:
        broker = BrokerResult(
            [failed("broker", f"Redis does not answer within {_BROKER_S:.0f} s", "look at Redis' host")]
        )
    yield from broker.checks
    say("asking the database")
    try:
        database = within(_DATABASE_S, lambda: check_database(settings))
    except TimeoutError:
        no_answer = failed(
            "database", f"it does not answer within {_DATABASE_S:.0f} s", "look at its host", DATABASE_UNUSABLE
        )
        database = DatabaseResult([no_answer])
    yield from database.checks
    yield _clocks(broker, database)
    yield from _work(database)
    say("looking at the disk")
    try:
        yield within(_BUCKET_S if settings.is_remote else _DISK_S, lambda: check_storage(settings))
    except TimeoutError:
        yield failed("disk", "the data folder does not answer", "look at the disk, the share or the server it lies on")
    yield check_prices(datetime.now(UTC).date())
    say("asking the workers, and Mistral through them")
    answers = _answers(settings, broker, mistral_s)
    if database.connections is not None:
        yield check_of(database.connections, len(answers) if broker.is_up else None)
    if broker.is_up:
        yield from checks_of(answers, broker.waiting, time.time())
    else:
        yield from checks_without_redis()


def _clocks(broker: BrokerResult, database: DatabaseResult) -> Check:
    skews = {"Redis": broker.ahead_s, "the database": database.ahead_s}
    off = {name: skew for name, skew in skews.items() if skew is not None and abs(skew) > _SKEW_S}
    if off:
        differences = " and ".join(
            f"{abs(skew):.1f} s {'behind' if skew > 0 else 'ahead of'} {name}" for name, skew in off.items()
        )
        return warning("clocks", f"this machine's clock is {differences}", "run NTP on every machine")
    reported = [name for name, skew in skews.items() if skew is not None]
    if not reported:
        return unknown("clocks", "neither Redis nor the database tells its time", "first what is wrong with them")
    return ok("clocks", f"this machine's clock agrees with {' and '.join(reported)} within {_SKEW_S:.0f} s")


def check_prices(today: date) -> Check:
    """Whether the price list is recent enough to estimate and to limit costs by."""
    age = age_days(today)
    summary = f"the price list is of {PRICES_AS_OF}"
    if age <= MAX_AGE_DAYS:
        return ok("prices", summary)
    return warning(
        "prices",
        f"{summary}, {age} days old: costs and caps may be wrong by now",
        "compare it with Mistral's price page, and upgrade Labelmill or set LABELMILL_PRICES",
    )


def _work(database: DatabaseResult) -> Iterator[Check]:
    engine = database.engine
    if engine is None:
        return
    try:
        yield from within(_RECORDS_S, lambda: [*check_work(engine), *check_worker_records(engine)])
    except TimeoutError:
        yield failed(
            "jobs", f"the database does not tell within {_RECORDS_S:.0f} s", "look at its load", DATABASE_UNUSABLE
        )
    except LabelmillError as error:
        yield failed("jobs", error.message, "look at the database's own log", DATABASE_UNUSABLE)
    finally:
        engine.dispose()


def _answers(settings: Settings, broker: BrokerResult, mistral_s: float) -> WorkerReplies:
    if not broker.is_up:
        return {}
    try:
        return within(ANSWER_S + mistral_s + 5, lambda: ask_workers(settings, mistral_s))
    except Exception:  # noqa: BLE001 - any error while asking means that no worker answered
        return {}
