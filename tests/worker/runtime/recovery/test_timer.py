"""RecoveryThread's own thread: one sweep an interval for all workers, whatever is out of reach, and one line about
it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import insert, select, update
from sqlalchemy.engine import Engine
from structlog.testing import capture_logs

from labelmill.contracts.errors import BrokerUnavailable, DatabaseUnavailable
from labelmill.contracts.ids import Kind, new_id
from labelmill.contracts.reported_limits import ReportedLimits
from labelmill.core.database import connect, reading, upgrade, writing
from labelmill.core.database.tables import BatchRow, ChunkRow, DatasetRow, LockRow, ModelRow
from labelmill.core.reported_limits import KnownLimits, known_limits
from labelmill.core.settings import Settings
from labelmill_worker.mistral.ratelimit.limiter import FleetLimiter
from labelmill_worker.runtime.recovery.sweep import sweep
from labelmill_worker.runtime.recovery.timer import RecoveryThread

NOBODY = "redis://127.0.0.1:1/0"
Logs = list[MutableMapping[str, Any]]


class Sweeps:
    """In place of the sweep: notes when it was called; raises what it is told to."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.trouble: list[Exception] = []

    def __call__(self, *arguments: Any, **options: Any) -> None:
        self.at.append(time.monotonic())
        if self.trouble:
            raise self.trouble.pop(0)


@pytest.fixture
def begin(engine: Engine, redis_url: str) -> Iterator[Callable[..., RecoveryThread]]:
    begun: list[RecoveryThread] = []

    def start(
        sweeps: Callable[..., None], *, every_s: float, url: str = "", broker_url: str = redis_url, **given: Any
    ) -> RecoveryThread:
        url = url or engine.url.render_as_string(hide_password=False)
        settings = Settings(database_url=url, broker_url=broker_url, sweep_s=every_s, **given)
        recovery = RecoveryThread(settings, sweep=sweeps)
        begun.append(recovery)
        recovery.start()
        return recovery

    yield start
    for recovery in begun:
        recovery.stop(10)
    assert not [thread for thread in threading.enumerate() if thread.name == "recovery"]


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def lines(logs: Logs, event: str) -> Logs:
    return [line for line in list(logs) if line["event"] == event]


def test_any_number_of_workers_sweep_once_an_interval_together(begin: Callable[..., RecoveryThread]) -> None:
    sweeps, began = Sweeps(), time.monotonic()
    for _ in range(4):
        begin(sweeps, every_s=0.4)
    wait_for(lambda: len(sweeps.at) >= 6)
    # a busy machine makes one late, and then the next comes sooner after it; none may come before its time
    after_s = [at - began for at in sweeps.at]
    assert all(seconds > 0.4 * number - 0.05 for number, seconds in enumerate(after_s)), after_s


def test_when_the_one_that_sweeps_ends_another_goes_on_at_once(
    begin: Callable[..., RecoveryThread], engine: Engine
) -> None:
    first, second = Sweeps(), Sweeps()
    sweeping = begin(first, every_s=60)
    wait_for(lambda: first.at)
    sweeping.stop(10)
    with reading(engine) as connection:
        assert connection.scalar(select(LockRow.lease_token).where(LockRow.name == "sweep")) is None
    begin(second, every_s=60)
    wait_for(lambda: second.at)


def test_what_answers_told_of_limits_is_kept_for_when_redis_has_forgotten_it(
    begin: Callable[..., RecoveryThread], engine: Engine, redis_url: str
) -> None:
    url = f"http://127.0.0.1:1/{new_id(Kind.BATCH)}"  # limits of its own
    settings = Settings(broker_url=redis_url, mistral_url=url, MISTRAL_API_KEY="any", _env_file=None)  # type: ignore[call-arg]

    async def answer() -> None:
        fleet = FleetLimiter.from_settings(settings)
        for model, limits in (("some", ReportedLimits(60, 59, tokens_left_of_month=7)), ("another", None)):
            limiter = fleet.of(model)
            await limiter.wait_for_permit(1, 5)
            limiter.note_answer(limits, 1, 1, 0.0)
            await asyncio.gather(*limiter._tasks)
        await fleet.close()

    asyncio.run(answer())
    begin(Sweeps(), every_s=0.1, mistral_url=url, MISTRAL_API_KEY="any")

    def kept() -> dict[str, KnownLimits]:
        with reading(engine) as connection:
            return known_limits(connection)

    wait_for(kept)
    (known,) = kept().values()
    assert kept().keys() == {"some"}
    assert (known.requests_per_minute, known.tokens_per_minute, known.tokens_left_of_month) == (60, None, 7)
    assert abs(known.seen_at - time.time()) < 60


def test_it_stops_at_once_however_long_the_interval(begin: Callable[..., RecoveryThread]) -> None:
    sweeps = Sweeps()
    recovery = begin(sweeps, every_s=300)
    wait_for(lambda: sweeps.at)
    recovery.stop(60)
    assert not [thread for thread in threading.enumerate() if thread.name == "recovery"]


def test_a_database_that_is_away_costs_one_line_and_no_traceback(begin: Callable[..., RecoveryThread]) -> None:
    sweeps = Sweeps()
    sweeps.trouble = [DatabaseUnavailable("the database cannot be used: it is away")] * 4
    with capture_logs() as logs:
        begin(sweeps, every_s=0.05)
        wait_for(lambda: lines(logs, "recovery goes on"))
    (line,) = lines(logs, "recovery waits")
    assert (line["reason"], line["exc_info"]) == ("the database cannot be used: it is away", False)
    assert len(sweeps.at) >= 5


def test_an_outage_of_redis_is_one_outage_however_many_sweeps_need_no_redis(
    begin: Callable[..., RecoveryThread],
) -> None:
    sweeps = Sweeps()
    sweeps.trouble = [BrokerUnavailable("Redis cannot be reached")]
    with capture_logs() as logs:
        begin(sweeps, every_s=0.05, broker_url=NOBODY)
        wait_for(lambda: len(sweeps.at) >= 5)
    assert len(lines(logs, "recovery waits")) == 1
    assert not lines(logs, "recovery goes on")


def test_an_unforeseen_fault_does_not_end_it(begin: Callable[..., RecoveryThread]) -> None:
    sweeps = Sweeps()
    sweeps.trouble = [ZeroDivisionError(), ZeroDivisionError()]
    with capture_logs() as logs:
        begin(sweeps, every_s=0.05)
        wait_for(lambda: lines(logs, "recovery goes on"))
    (line,) = lines(logs, "recovery waits")
    assert line["exc_info"] is True


def test_missing_tables_are_waited_for_and_told_once(begin: Callable[..., RecoveryThread], tmp_path: Path) -> None:
    sweeps = Sweeps()
    url = f"sqlite:///{tmp_path}/later.db"
    with capture_logs() as logs:
        begin(sweeps, every_s=0.05, url=url)
        wait_for(lambda: lines(logs, "recovery waits"))
        engine = connect(url)
        upgrade(engine)
        engine.dispose()
        wait_for(lambda: sweeps.at)
    (line,) = lines(logs, "recovery waits")
    assert "labelmill db upgrade" in line["reason"]


def test_stalled_work_is_sent_over_its_one_connection(
    begin: Callable[..., RecoveryThread], engine: Engine, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        with writing(engine) as connection:
            connection.execute(insert(ModelRow).values(no=1, name="m", version=1, method="factory"))
            batch = {"id": new_id(Kind.BATCH), "state": "queued", "model_no": 1, "model_ref": "m", "options": {}}
            number = connection.execute(insert(BatchRow).values(batch).returning(BatchRow.no)).scalar_one()
            held = {"state": "claimed", "lease_token": "dead", "lease_until": 1.0}
            chunk = {"batch_no": number, "number": 0, "first_row": 0, "rows": 1, "texts": 1}
            connection.execute(insert(ChunkRow).values(chunk | held))
            dataset = {"id": new_id(Kind.DATASET), "state": "queued", "name": "n", "spec": {}, "next_look_at": 1.0}
            connection.execute(insert(DatasetRow).values(dataset))
        begin(sweep, every_s=0.1)
        wait_for(lambda: client.llen("classify\x06\x163") and client.llen("prepare\x06\x163"))


def test_a_worker_that_was_killed_as_it_swept_holds_nobody_up_for_longer_than_an_interval(
    begin: Callable[..., RecoveryThread], engine: Engine
) -> None:
    killed, sweeps = Sweeps(), Sweeps()
    begin(killed, every_s=0.5).stop(0)
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "recovery"])
    with writing(engine) as connection:
        connection.execute(update(LockRow).values(lease_token="dead"))
    begin(sweeps, every_s=0.5)
    wait_for(lambda: sweeps.at)
