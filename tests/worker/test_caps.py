"""Caps: no job spends more than it may, what is not spent comes back, and a higher cap goes on where it stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asked import cancel, refused, submit_batch, submit_evaluation, submit_training
from asked import retry as retry_job
from mill import DEADLINE_S, Mill, open_mill, some_texts, until
from sqlalchemy import func, select, update
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral, refuse_texts_with
from workshop import SCHEMA, PollingWorkshop, Workshop, intent_rows

from labelmill.contracts.errors import CapReached, InvalidInput
from labelmill.contracts.exit_codes import exit_code_of_job
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import (
    BatchRow,
    BudgetRow,
    ChunkRow,
    EvaluationRow,
    EventRow,
    LedgerRow,
    ReservationRow,
    utc_now,
)
from labelmill.core.money.nanos import amount_of, nanos
from labelmill.core.money.prices import PriceList
from labelmill.core.settings import Settings
from labelmill.core.storage.opening import open_storage
from labelmill.services.context import ServiceContext
from labelmill.services.evaluations import CompareRequest, accept_comparison
from labelmill.services.jobs.requests import RetryRequest
from labelmill.services.jobs.retrying import retry
from labelmill.services.purging import PurgeRequest, purge
from labelmill.services.submissions.accepted import start
from labelmill_worker.store.budgets import (
    Cap,
    Holder,
    Settlement,
    charge_dead_holders,
    charge_holder,
    release,
    reserve,
    settle,
)
from labelmill_worker.store.chunks import claim_chunk
from labelmill_worker.store.stalled import return_expired_chunks

PRICE = {"stand-in": (1000.0, 0.0)}  #: USD for a million tokens: a request of ten texts costs some 0.06.


@pytest.fixture
def priced(engine: Engine, mistral: StrictMistral, redis_url: str) -> Iterator[Mill]:
    made, runtime = open_mill(engine, mistral, redis_url, prices=PRICE)
    made.run(made.submit(["a first text, so that the labels are known"]))
    yield made
    assert made.free_slots() == 8, "a slot was lost"
    runtime.close()


def limit(mill: Mill, batch_id: str, max_cost: float) -> str:
    with writing(mill.engine) as connection:
        connection.execute(update(BatchRow).where(BatchRow.id == batch_id).values(max_cost=max_cost))
    return batch_id


def spent(engine: Engine, job_id: str) -> float:
    with reading(engine) as connection:
        return float(connection.scalar(select(func.sum(LedgerRow.amount)).where(LedgerRow.job_id == job_id)) or 0.0)


def budget(engine: Engine, scope: str) -> tuple[float, float]:
    with reading(engine) as connection:
        row = connection.execute(select(BudgetRow.spent, BudgetRow.reserved).where(BudgetRow.scope == scope)).one()
    return amount_of(row.spent), amount_of(row.reserved)


def test_a_batch_pauses_at_its_cap_and_goes_on_under_a_higher_one(priced: Mill) -> None:
    texts = some_texts(400)
    batch = limit(priced, priced.submit(texts, chunk_texts=100), 1.0)
    status = priced.run(batch)
    assert (status["state"], status["error_code"], exit_code_of_job(status)) == ("paused", "cap_reached", 4)
    assert status["max_cost"] == 1.0
    assert 0.7 < status["cost"]["amount"] <= 1.0, "the rest is below what one more request may cost"
    assert f"retry {status['id']} --max-cost" in status["error"]
    assert budget(priced.engine, batch) == (pytest.approx(status["cost"]["amount"]), 0.0)
    answered = status["rows"]["labelled"]
    assert 0 < answered < 400
    with pytest.raises(InvalidInput, match="is not enough"):  # a total that is spent already
        retry_under(priced, batch, 0.5)
    assert priced.run(batch)["state"] == "paused"
    retry_under(priced, batch, 10.0)
    status = priced.run(batch)
    assert (status["state"], status["rows"]["labelled"]) == ("completed", 400)
    assert set(priced.mistral.billed.values()) == {1}, "it goes on where it stopped"
    assert budget(priced.engine, batch) == (pytest.approx(spent(priced.engine, batch)), 0.0)
    with reading(priced.engine) as connection:
        assert connection.scalar(select(func.count()).select_from(ReservationRow)) == 0


def retry_under(mill: Mill, batch: str, max_cost: float) -> None:
    context = ServiceContext(mill.engine, mill.sender, prices=PriceList(PRICE))
    retry(context, RetryRequest(batch, max_cost))


def test_a_cap_below_the_first_request_pauses_at_once_and_nothing_is_sent(priced: Mill) -> None:
    requests = priced.mistral.requests
    batch = limit(priced, priced.submit(some_texts(20)), 0.001)
    assert priced.run(batch)["state"] == "paused"
    assert priced.mistral.requests == requests


def test_purge_keeps_what_a_job_has_cost_and_drops_its_budget(priced: Mill) -> None:
    batch = limit(priced, priced.submit(some_texts(20)), 5.0)
    assert priced.run(batch)["state"] == "completed"
    paid = spent(priced.engine, batch)
    with writing(priced.engine) as connection:
        connection.execute(update(BatchRow).values(finished_at=datetime(2020, 1, 1, tzinfo=UTC)))
    purge(ServiceContext(priced.engine, priced.sender), PurgeRequest("1d"))
    with reading(priced.engine) as connection:
        assert connection.scalar(select(func.count()).select_from(BatchRow)) == 0
        assert connection.scalar(select(func.count()).select_from(BudgetRow)) == 0
    assert spent(priced.engine, batch) == paid > 0


def test_many_chunks_at_once_stay_below_one_cap(priced: Mill) -> None:
    batch = limit(priced, priced.submit(some_texts(1000), chunk_texts=50), 2.0)
    priced.mistral.latency_s = 0.01
    with ThreadPoolExecutor(8) as pool:
        while priced.status(batch)["state"] in ("queued", "running"):
            list(pool.map(lambda number: priced.work(batch, number), range(8)))
    status = priced.status(batch)
    assert status["state"] == "paused"
    assert 1.7 < spent(priced.engine, batch) <= 2.0
    assert budget(priced.engine, batch)[1] == 0.0


def test_the_month_of_the_installation_is_one_cap_for_all_jobs(
    engine: Engine, mistral: StrictMistral, redis_url: str
) -> None:
    mill, runtime = open_mill(engine, mistral, redis_url, prices=PRICE, monthly_cap=1.0)
    first = mill.submit(some_texts(100))
    assert mill.run(first)["state"] == "completed"
    second = mill.submit(some_texts(300)[100:])
    status = mill.run(second)
    assert (status["state"], status["error_code"]) == ("paused", "cap_reached")
    assert "LABELMILL_MONTHLY_CAP" in status["error"]
    assert 0.7 < spent(engine, first) + spent(engine, second) <= 1.0
    runtime.close()


def test_what_was_spent_before_a_cap_was_set_counts(priced: Mill) -> None:
    batch = priced.submit(some_texts(200), chunk_texts=100)
    priced.work(batch, 0)
    before = spent(priced.engine, batch)
    assert before > 0.5
    limit(priced, batch, before + 0.1)
    assert priced.run(batch)["state"] == "paused"
    assert spent(priced.engine, batch) == before


def test_a_refused_request_gives_its_reservation_back(priced: Mill) -> None:
    priced.mistral.faults.append(refuse_texts_with("bad"))
    batch = limit(priced, priced.submit(["a bad text"]), 5.0)
    assert priced.run(batch)["rows"]["failed"] == 1
    assert budget(priced.engine, batch) == (0.0, 0.0)


def test_what_a_dead_worker_had_reserved_counts_as_spent_and_the_rest_comes_back(priced: Mill) -> None:
    batch = limit(priced, priced.submit(some_texts(100), chunk_texts=50), 3.0)
    claim = claim_chunk(priced.engine, batch, 0, 15)
    assert claim is not None
    holder = Holder(claim.token, (claim.batch_no, claim.number))
    assert reserve(priced.engine, claim.caps, holder, nanos(0.5)) is None
    assert charge_dead_holders(priced.engine) == 0, "its claim is alive"
    with writing(priced.engine) as connection:
        connection.execute(update(ChunkRow).where(ChunkRow.batch_no == claim.batch_no).values(lease_until=1.0))
    assert return_expired_chunks(priced.engine) == 1
    assert charge_dead_holders(priced.engine) == 1
    assert budget(priced.engine, batch) == (0.5, 0.0)
    with reading(priced.engine) as connection:
        line = connection.execute(select(LedgerRow.amount, LedgerRow.estimated).where(LedgerRow.job_id == batch)).one()
    assert tuple(line) == (0.5, True)
    with writing(priced.engine) as connection:
        assert settle(connection, {claim.token: Settlement(nanos(0.5), nanos(0.1))}) == frozenset()
    assert priced.run(batch)["state"] == "completed"
    assert budget(priced.engine, batch) == (pytest.approx(spent(priced.engine, batch)), 0.0)


def test_a_batch_waits_for_what_others_hold_before_it_pauses(priced: Mill) -> None:
    batch = limit(priced, priced.submit(some_texts(50)), 1.0)
    scope, held = Cap(batch, nanos(1.0)), Holder("another")
    assert reserve(priced.engine, [scope], held, nanos(0.95)) is None
    worker = threading.Thread(target=priced.run, args=(batch,))
    worker.start()
    until(lambda: priced.delays and max(priced.delays) >= 1.0)
    assert priced.status(batch)["state"] == "running"
    release(priced.engine, "another")
    worker.join(DEADLINE_S)
    assert priced.status(batch)["state"] == "completed"


def test_reservations_of_several_caps_are_all_or_none(engine: Engine) -> None:
    own, month = Cap("batch_1", nanos(5.0)), Cap("month:2026-11", nanos(1.0))
    assert reserve(engine, [own, month], Holder("one"), nanos(0.6)) is None
    assert reserve(engine, [own, month], Holder("two"), nanos(0.6)) == month
    assert budget(engine, "batch_1") == (0.0, 0.6)
    with writing(engine) as connection:
        assert settle(connection, {"one": Settlement(nanos(0.6), nanos(0.2))}) == {"one"}
    assert (budget(engine, "batch_1"), budget(engine, "month:2026-11")) == ((0.2, 0.0), (0.2, 0.0))
    assert reserve(engine, [own, month], Holder("two"), nanos(0.6)) is None
    release(engine, "two")
    assert budget(engine, "month:2026-11") == (0.2, 0.0)


def test_settling_more_than_is_reserved_takes_nothing_of_what_others_reserved(engine: Engine) -> None:
    cap = Cap("batch_1", nanos(5.0))
    assert reserve(engine, [cap], Holder("one"), nanos(0.6)) is None
    assert reserve(engine, [cap], Holder("two"), nanos(0.6)) is None
    with writing(engine) as connection:
        assert settle(connection, {"one": Settlement(nanos(2.0), nanos(0.2))}) == {"one"}
    assert budget(engine, "batch_1") == (0.2, 0.6)
    with reading(engine) as connection:
        held = dict(connection.execute(select(ReservationRow.holder, ReservationRow.amount)).all())
    assert held == {"one": 0, "two": nanos(0.6)}


def test_what_workers_without_the_cap_spend_counts_for_the_month(
    engine: Engine, mistral: StrictMistral, redis_url: str
) -> None:
    texts = some_texts(300)
    capped, capped_runtime = open_mill(engine, mistral, redis_url, prices=PRICE, monthly_cap=1.0)
    assert capped.run(capped.submit(texts[:20]))["state"] == "completed"
    free, free_runtime = open_mill(engine, mistral, redis_url, prices=PRICE)
    assert free.run(free.submit(texts[20:60]))["state"] == "completed"
    assert free.run(limit(free, free.submit(texts[60:80]), 5.0))["state"] == "completed"
    month = f"month:{utc_now():%Y-%m}"
    assert budget(engine, month) == (pytest.approx(spent_by_all(engine)), 0.0)
    claim = claim_chunk(engine, limit(free, free.submit(texts[80:90]), 5.0), 0, 15)
    assert claim is not None
    assert reserve(engine, claim.caps, Holder(claim.token, (claim.batch_no, claim.number)), nanos(0.05)) is None
    charge_holder(engine, claim.token, claim.batch_no, "realtime")
    assert budget(engine, month) == (pytest.approx(spent_by_all(engine)), 0.0)
    assert capped.run(capped.submit(texts[100:]))["state"] == "paused"
    assert 0.7 < spent_by_all(engine) <= 1.0
    capped_runtime.close()
    free_runtime.close()


def spent_by_all(engine: Engine) -> float:
    with reading(engine) as connection:
        return float(connection.scalar(select(func.sum(LedgerRow.amount))) or 0.0)


@pytest.fixture
def workshop(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    made = PollingWorkshop(engine, mistral, redis_url, tmp_path)
    made.dataset("small", SCHEMA, **{name: intent_rows(name, 60) for name in ("train", "validation", "test")})
    yield made
    made.close()


def test_a_training_fails_at_its_cap_and_goes_on_under_a_higher_one(workshop: Workshop) -> None:
    engine, sender = workshop.engine, workshop.sender
    # the estimate passes, and the bounds of requests do not
    estimated = 120 * 8 * 0.1 / 1e6
    job_id = submit_training(engine, sender, name="m", dataset="small", max_cost=estimated * 1.1)
    training = workshop.run(job_id)
    assert (training["state"], training["error_code"], exit_code_of_job(training)) == ("failed", "cap_reached", 4)
    assert f"`labelmill retry {job_id} --max-cost AMOUNT` goes on" in training["error"]
    assert 0 < training["cost"]["amount"] <= estimated * 1.1
    with refused(f"runs for {job_id}: retry that"):
        retry_job(engine, sender, training["batch"], 1.0)
    with refused("0 or more"):
        retry_job(engine, sender, job_id, -1.0)
    retry_job(engine, sender, job_id)
    assert workshop.run(job_id)["error_code"] == "cap_reached", "a total that is spent already"
    retry_job(engine, sender, job_id, 1.0)
    training = workshop.run(job_id)
    assert (training["state"], training["max_cost"], training["error"]) == ("succeeded", 1.0, None)
    assert set(workshop.mistral.billed.values()) == {1}, "vectors that were paid for are kept"
    assert sum(workshop.mistral.billed.values()) == 120
    assert training["cost"]["amount"] == pytest.approx(spent(engine, job_id))
    with refused("succeeded: only a training that failed"):
        retry_job(engine, sender, job_id)


@pytest.mark.parametrize("calibrate", [False, True])
def test_an_evaluation_fails_at_its_cap_and_goes_on_with_its_answers(workshop: Workshop, *, calibrate: bool) -> None:
    engine, sender, mistral = workshop.engine, workshop.sender, workshop.mistral
    workshop.run(submit_training(engine, sender, name="m", dataset="small", yes=True))
    mistral.billed.clear()
    asked = {"model": "m", "dataset": "small", "calibrate": calibrate}
    job_id = submit_evaluation(engine, sender, **asked, max_cost=0.00005)
    evaluation = workshop.run(job_id)
    assert (evaluation["state"], evaluation["error_code"], exit_code_of_job(evaluation)) == ("failed", "cap_reached", 4)
    assert f"`labelmill retry {job_id} --max-cost AMOUNT` goes on" in evaluation["error"]
    before = sum(mistral.billed.values())
    assert 0 < before < 60
    assert spent(engine, job_id) <= 0.00005
    with writing(engine) as connection:  # as if it had waited for a person for an hour
        an_hour_ago = utc_now() - timedelta(hours=1)
        batch = BatchRow.id == evaluation["batch"]
        connection.execute(update(BatchRow).where(batch).values(started_at=an_hour_ago, finished_at=an_hour_ago))
        connection.execute(update(EventRow).where(EventRow.job_id == evaluation["batch"]).values(at=an_hour_ago))
    retry_job(engine, sender, job_id, 1.0)
    evaluation = workshop.run(job_id)
    assert (evaluation["state"], evaluation["max_cost"], evaluation["error"]) == ("completed", 1.0, None)
    assert evaluation["summary"]["rows"] == 60
    assert set(mistral.billed.values()) == {1}
    assert sum(mistral.billed.values()) == (120 if calibrate else 60)
    assert evaluation["summary"]["seconds"] < 1800, "the time that it waited for a person is not that of its answers"


def test_no_vector_is_paid_for_at_a_cap_whose_text_is_not_asked_about(workshop: Workshop) -> None:
    engine, sender, mistral = workshop.engine, workshop.sender, workshop.mistral
    training = submit_training(
        engine, sender, name="m", dataset="small", method="prompt", shots=1, shot_selection="nearest", yes=True
    )
    assert workshop.run(training)["state"] == "succeeded"
    mistral.billed.clear()
    job_id = submit_evaluation(engine, sender, model="m", dataset="small", max_cost=0.0007)
    assert workshop.run(job_id)["error_code"] == "cap_reached"
    assert 0 < len(mistral.billed) < 60
    assert set(mistral.billed.values()) == {2}, "a vector and an answer of each"
    retry_job(engine, sender, job_id, 1.0)
    assert workshop.run(job_id)["state"] == "completed"
    assert (len(mistral.billed), set(mistral.billed.values())) == (60, {2})


def test_an_evaluation_whose_batch_was_cancelled_begins_another_one(workshop: Workshop) -> None:
    engine, sender = workshop.engine, workshop.sender
    workshop.run(submit_training(engine, sender, name="m", dataset="small", yes=True))
    job_id = submit_evaluation(engine, sender, model="m", dataset="small")
    while (batch := workshop.status(job_id)["batch"]) is None:
        workshop.step()
    cancel(engine, sender, batch)
    assert workshop.run(job_id)["state"] == "failed"
    retry_job(engine, sender, job_id)
    evaluation = workshop.run(job_id)
    assert (evaluation["state"], evaluation["summary"]["rows"]) == ("completed", 60)
    assert evaluation["batch"] != batch


def test_a_comparison_goes_on_with_an_evaluation_that_stopped_at_its_cap(workshop: Workshop) -> None:
    engine, sender, mistral = workshop.engine, workshop.sender, workshop.mistral
    for _ in range(2):
        workshop.run(submit_training(engine, sender, name="m", dataset="small", yes=True))
    mistral.billed.clear()
    compared = compare(workshop, max_cost=0.00005)
    assert {workshop.run(job_id)["error_code"] for job_id in compared} == {"cap_reached"}
    assert 0 < sum(mistral.billed.values()) < 120
    assert compare(workshop, max_cost=1.0) == compared
    assert {workshop.run(job_id)["state"] for job_id in compared} == {"completed"}
    assert sum(mistral.billed.values()) == 120
    assert compare(workshop, max_cost=1.0) == compared


def compare(workshop: Workshop, max_cost: float) -> tuple[str, ...]:
    context = ServiceContext(workshop.engine, workshop.sender)
    comparable = accept_comparison(context, CompareRequest(["m@1", "m@2"], "small", max_cost=max_cost))
    for accepted in comparable.accepted:
        start(context, accepted)
    return comparable.evaluations


def test_what_a_failed_evaluation_keeps_is_purged_with_it(workshop: Workshop) -> None:
    engine, sender = workshop.engine, workshop.sender
    workshop.run(submit_training(engine, sender, name="m", dataset="small", yes=True))
    evaluation = workshop.run(submit_evaluation(engine, sender, model="m", dataset="small", max_cost=0.00005))
    assert workshop.status(evaluation["batch"])["state"] == "paused"
    with writing(engine) as connection:
        for table in (BatchRow, EvaluationRow):
            connection.execute(update(table).values(finished_at=datetime(2020, 1, 1, tzinfo=UTC)))
    purge(ServiceContext(engine, sender, open_storage(Settings(data_dir=str(workshop.folder)))), PurgeRequest("1d"))
    with reading(engine) as connection:
        assert connection.scalar(select(BatchRow.id).where(BatchRow.id == evaluation["batch"])) is None


def test_a_cap_is_refused_that_is_no_amount_or_cannot_be_kept(workshop: Workshop) -> None:
    engine, sender = workshop.engine, workshop.sender
    source = workshop.folder / "texts.jsonl"
    source.write_text('{"text": "one text"}\n')
    for max_cost in (-1.0, float("nan"), 2e9):
        with pytest.raises(InvalidInput, match="0 or more"):
            submit_batch(engine, sender, source=str(source), model="ft:classifier:any", max_cost=max_cost)
    with pytest.raises(InvalidInput, match="price of 'ft:classifier:any' is not known"):
        submit_batch(engine, sender, source=str(source), model="ft:classifier:any", max_cost=1.0)
    with pytest.raises(InvalidInput, match="price of 'unheard-of' is not known"):
        submit_training(engine, sender, name="m", dataset="small", base_model="unheard-of", max_cost=1.0)
    with reading(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(BatchRow)) == 0
    submit_batch(engine, sender, source=str(source), model="ft:classifier:ministral-3b-latest:any", max_cost=1.0)


def test_a_monthly_cap_that_is_no_amount_is_refused() -> None:
    with pytest.raises(ValueError, match="monthly_cap"):
        Settings(monthly_cap=-1.0)


def test_the_error_of_a_cap_says_how_to_go_on() -> None:
    error = Cap("batch_1", nanos(2.5)).reached()
    assert isinstance(error, CapReached)
    assert error.message.startswith("the cap of 2.5 USD is reached")


def test_the_error_of_a_cap_names_the_job_that_goes_on() -> None:
    assert "`labelmill retry eval_1 --max-cost AMOUNT`" in Cap("eval_1", nanos(2.5)).reached("eval_1").message
    month = Cap("month:2026-11", nanos(2.5))
    assert month.reached("eval_1").message.endswith("then `labelmill retry eval_1` goes on")
    assert month.reached().message.endswith("then `labelmill retry ID` goes on")
