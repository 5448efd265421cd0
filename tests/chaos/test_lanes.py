"""The chaos suite itself: no seed goes missing, whatever its harness does."""

from __future__ import annotations

import importlib
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from labelmill.core.chunks import sizes

_CHAOS = Path(__file__).parents[2] / "ops" / "chaos"


@pytest.fixture
def chaos(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Loads a module of the scripts in ops/chaos, which are no package."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(_CHAOS))
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(_CHAOS)):
            del sys.modules[name]


class _Rig:
    """A stack that has nothing in it."""

    def __init__(self, name: str) -> None:
        self.name, self.clock, self.findings, self.notes = name, None, [], []
        self.lost_slots, self.doomed, self.broken_at = 0, False, 0.0
        counts = SimpleNamespace(spoilt={})
        self.mistral = SimpleNamespace(reset=lambda rng: None, counts=counts)

    def wait_until_ready(self) -> None:
        pass

    def keep_alive(self) -> None:
        pass

    def heal_all(self) -> None:
        pass

    def close(self) -> list[str]:
        return []


def test_a_batch_of_a_run_has_many_chunks(chaos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHUNK_TEXTS", "PROMPTED_TEXTS"):
        monkeypatch.setattr(sizes, name, getattr(sizes, name))
    forker = chaos("forker")
    forker.small_chunks()
    assert {sizes.ChunkSizes.of(method).max_texts for method in ("classifier", "prompt")} == {forker.CHUNK_TEXTS}


def test_a_seed_that_raises_is_named_and_counted_and_the_others_still_run(
    chaos: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lanes, seed_run, run = _loaded(chaos, "lanes", "seed_run", "run")
    opened: list[str] = []

    def run_one(self: Any, outcome: Any) -> None:
        del outcome
        if self._scenario.seed == 11:
            raise ConnectionError("nobody listens")

    def open_one(name: str, *_: Any, **__: Any) -> _Rig:
        opened.append(name)
        return _Rig(name)

    monkeypatch.setattr(lanes, "open_rig", open_one)
    monkeypatch.setattr(lanes, "Forker", lambda: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(lanes, "small_chunks", lambda: None)
    monkeypatch.setattr(seed_run.SeedRun, "_run", run_one)
    tasks = [lanes.Task(run.scenario_of(seed, ["sqlite"])) for seed in (10, 11, 12)]
    lane = lanes.Lanes(tasks, lanes.Timing(2, 1, 60), count=1, minutes=1)

    code = run._run(lane, 3, lambda seed: f"run.py --seed {seed}", None)

    said = capsys.readouterr().out
    assert code == 1
    assert "FAIL seed 11" in said
    assert "the harness raised ConnectionError: nobody listens" in said
    assert "again: run.py --seed 11" in said
    assert "ok   seed 10" in said
    assert "ok   seed 12" in said
    assert said.splitlines()[-1].startswith("3 of 3 seeds in ")
    assert said.splitlines()[-1].endswith("1 failed: 11")
    assert len(set(opened)) == len(opened) == 2  # what the seed left behind may be broken


def test_a_lane_whose_stack_does_not_start_goes_on_with_the_next_seed(
    chaos: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lanes, seed_run, run = _loaded(chaos, "lanes", "seed_run", "run")
    starts = iter([RuntimeError("the workers did not start"), None])

    def open_one(name: str, *_: Any, **__: Any) -> _Rig:
        if trouble := next(starts):
            raise trouble
        return _Rig(name)

    monkeypatch.setattr(lanes, "open_rig", open_one)
    monkeypatch.setattr(lanes, "Forker", lambda: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(lanes, "small_chunks", lambda: None)
    monkeypatch.setattr(seed_run.SeedRun, "_run", lambda self, outcome: None)
    tasks = [lanes.Task(run.scenario_of(seed, ["sqlite"])) for seed in (10, 11)]
    lane = lanes.Lanes(tasks, lanes.Timing(2, 1, 60), count=1, minutes=1)

    assert run._run(lane, 2, lambda seed: f"run.py --seed {seed}", None) == 1

    said = capsys.readouterr().out
    assert "FAIL seed 10" in said
    assert "the harness raised RuntimeError: the workers did not start" in said
    assert "ok   seed 11" in said


def test_a_fault_that_cannot_end_while_another_lasts_ends_after_it(chaos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seed_run, scenario, faults = _loaded(chaos, "seed_run", "scenario", "faults")
    tries: list[str] = []

    def heal() -> None:
        tries.append("heal")
        if len(tries) < 3:
            raise ConnectionError("Redis is killed at the moment")

    fault = faults.InjectedFault("Redis full", lambda rig, rng: heal)
    monkeypatch.setattr(seed_run, "all_faults", lambda: {"Redis full": fault})
    injection = scenario.Injection(0, 0.0, "Redis full", 0.0)
    one = scenario.Scenario(1, "sqlite", ("classify",), (injection,))
    rig: Any = _Rig("lane")
    rig.client = SimpleNamespace()
    work = SimpleNamespace(ended=False, advance=lambda: None, truth={}, jobs=[], name="work")

    seed_run.SeedRun(rig, one, 5.0, None, threading.Event())._play([work])

    assert len(tries) == 3


def test_a_fault_that_never_ends_is_a_problem_of_its_seed(chaos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seed_run, scenario, faults = _loaded(chaos, "seed_run", "scenario", "faults")

    def heal() -> None:
        raise ConnectionError("Redis is gone")

    fault = faults.InjectedFault("Redis full", lambda rig, rng: heal)
    monkeypatch.setattr(seed_run, "all_faults", lambda: {"Redis full": fault})
    work = SimpleNamespace(ended=False, advance=lambda: None, truth={}, jobs=[], name="work")
    monkeypatch.setattr(seed_run, "make_work", lambda *_: work)
    one = scenario.Scenario(1, "sqlite", ("classify",), (scenario.Injection(0, 0.0, "Redis full", 0.0),))
    rig: Any = _Rig("lane")

    outcome = seed_run.SeedRun(rig, one, 0.2, None, threading.Event()).run()

    assert outcome.problems[0] == "the harness raised ConnectionError: Redis is gone"


def test_a_schedule_is_the_same_for_the_same_seed(chaos: Any) -> None:
    (scenario,) = _loaded(chaos, "scenario")
    databases = ["sqlite", "postgresql"]
    seeds = [random.Random(7).randrange(1 << 30) for _ in range(5)]
    assert [scenario.scenario_of(n, databases) for n in seeds] == [scenario.scenario_of(n, databases) for n in seeds]


def _loaded(chaos: Any, *names: str) -> list[ModuleType]:
    return [chaos(name) for name in names]
