"""The arithmetic of mode auto."""

from __future__ import annotations

import pytest

from labelmill_worker.inference.batch_mode.deadline import (
    DRAIN_S,
    Decision,
    JobProgress,
    PastBatch,
    PastJob,
    decide,
    drain_s,
    job_duration_s,
    job_remaining_s,
    prior_duration_s,
    realtime_per_s,
)


def _decide(deadline_s: float, realtime_s: float, job: JobProgress, history: tuple[PastJob, ...] = ()) -> Decision:
    return decide(deadline_s=deadline_s, realtime_s=realtime_s, drain=drain_s(0), job=job, history=history)


def test_it_moves_at_the_latest_moment_and_not_before() -> None:
    job = JobProgress(1000, 0, 10.0)
    history = (PastJob(1000, 400.0),)
    latest = 1.2 * 100.0 + DRAIN_S
    assert _decide(latest + 400.0, 100.0, job, history).reason is None
    assert _decide(latest - 0.1, 100.0, job, history).reason is not None
    assert _decide(latest + 400.0, 100.0, job, history).look_again_s == pytest.approx(400.0)


def test_it_begins_in_realtime_when_that_moment_has_passed() -> None:
    assert _decide(100.0, 60.0, JobProgress(10)).reason is not None
    assert _decide(103.0, 60.0, JobProgress(10)).reason is None


def test_it_begins_in_realtime_when_jobs_were_always_too_slow() -> None:
    slow = (PastJob(1000, 4000.0),)
    late = _decide(3900.0, 10.0, JobProgress(1000), slow).reason
    assert late == "realtime: a batch job is expected to take about 67 min, as earlier ones did, and 65 min are left"
    assert _decide(4100.0, 10.0, JobProgress(1000), slow).reason is None


def test_it_begins_with_batch_jobs_while_it_is_not_known_what_they_take() -> None:
    assert _decide(60.0, 10.0, JobProgress(1000)).reason is None


def test_it_moves_once_a_job_is_expected_to_end_too_late() -> None:
    history = (PastJob(1000, 4000.0),)
    assert _decide(3000.0, 10.0, JobProgress(1000, 0, 1.0), history).reason is not None
    assert _decide(5000.0, 10.0, JobProgress(1000, 0, 1.0), history).reason is None


def test_a_job_takes_what_three_of_four_took_in_proportion() -> None:
    history = [PastJob(100, factor * prior_duration_s(100)) for factor in (1, 2, 3, 9)]
    assert job_duration_s(1000, history) == pytest.approx(3 * prior_duration_s(1000))
    assert job_duration_s(1000, []) == prior_duration_s(1000) == pytest.approx(70.0)


@pytest.mark.parametrize(
    ("job", "remaining_s"),
    [
        (JobProgress(1000), 70.0),
        (JobProgress(1000, 0, 30.0), 40.0),
        (JobProgress(1000, 500, 100.0), 100.0),
        (JobProgress(1000, 500, 300.0), 300.0),
        (JobProgress(1000, 0, 100.0), 100.0),
    ],
    ids=["not made", "young", "half-way", "stalled half-way", "nothing done"],
)
def test_a_job_that_is_late_goes_on_as_it_did(job: JobProgress, remaining_s: float) -> None:
    assert job_remaining_s(job, []) == pytest.approx(remaining_s)


def test_realtime_keeps_to_the_limits_and_to_what_was_measured() -> None:
    past = [PastBatch(100, 50_000, 10.0), PastBatch(100, 50_000, 20.0), PastBatch(100, 50_000, 5.0)]
    assert realtime_per_s([], requests_per_s=0, tokens_per_s=0, in_flight=64) == 64
    assert realtime_per_s(past, requests_per_s=0, tokens_per_s=0, in_flight=64) == 10
    assert realtime_per_s(past, requests_per_s=4, tokens_per_s=0, in_flight=64) == 4
    assert realtime_per_s(past, requests_per_s=0, tokens_per_s=1000, in_flight=64) == 2
