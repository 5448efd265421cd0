"""How faults are written, and when they strike."""

import pytest

from labelmill_ops.emulator.fault_kinds import KINDS, FaultPlan, UnknownFaultError, parse_fault


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_named_alone_and_reads_back_as_written(kind: str) -> None:
    fault = parse_fault(kind)
    assert (fault.kind, fault.probability, fault.times) == (kind, 1.0, None)
    assert parse_fault(str(fault)) == fault


def test_a_fault_is_narrowed_to_calls_times_and_probability() -> None:
    fault = parse_fault("slow@classify,chatx3:0.25:40")
    assert (fault.calls, fault.times, fault.probability, fault.seconds) == ({"classify", "chat"}, 3, 0.25, 40)
    assert parse_fault(str(fault)) == fault


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("explode", "there is no fault 'explode'; there are 410, 429, "),
        ("", "there is no fault ''"),
        ("502@nowhere", "there is no call 'nowhere'; there are classify, "),
        ("502:2", "probability"),
        ("502:often", "probability"),
        ("502:nan", "probability"),
        ("502:0.1:3", "takes no parameter"),
        ("slow:1:-3", "'-3' does not fit slow"),
        ("lost:1:503", "'503' does not fit lost"),
        ("job-stuck:1:DONE", "'DONE' does not fit job-stuck"),
        ("job-fails@classify", "create-job alone"),
        ("502:1:2:3", "is not KIND"),
    ],
)
def test_a_fault_that_is_written_wrong_is_refused_with_what_there_is(written: str, complaint: str) -> None:
    with pytest.raises(UnknownFaultError, match=complaint):
        parse_fault(written)


def test_the_same_seed_strikes_at_the_same_requests() -> None:
    def struck(seed: int) -> list[bool]:
        plan = FaultPlan([parse_fault("502:0.5")], seed)
        return [plan.draw("classify") is not None for _ in range(64)]

    assert struck(7) == struck(7) != struck(8)
    assert 16 < sum(struck(7)) < 48


def test_a_fault_strikes_no_more_often_than_it_is_told_and_only_its_calls() -> None:
    plan = FaultPlan([parse_fault("500@create-jobx2")])
    assert [plan.draw(call) is not None for call in ("classify", *["create-job"] * 3)] == [False, True, True, False]
    assert plan.as_json() == {"seed": 0, "faults": [{"fault": "500@create-jobx2:1", "struck": 2}]}


def test_the_fate_of_a_job_is_no_fault_of_a_request() -> None:
    plan = FaultPlan([parse_fault("job-fails")])
    assert plan.draw("create-job") is None
    assert plan.draw("create-job", job=True) is not None
