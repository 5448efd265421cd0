"""How commands end: sentences and the next command on a terminal, JSON where stdout is none or --json was given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import typer
from command_line import NOBODY_REDIS, Run
from sqlalchemy import insert
from terminal import on_terminal
from typer.core import TyperGroup

from labelmill.cli import main
from labelmill.cli.summaries import summary_of
from labelmill.core.database import connect, writing
from labelmill.core.database.tables import (
    BatchRow,
    ChunkRow,
    DatasetRow,
    DuplicateRow,
    EvaluationRow,
    LedgerRow,
    ModelRow,
    RowErrorRow,
    TrainingRow,
    utc_now,
)

pytestmark = pytest.mark.acceptance

PREP, TRAIN, EVAL = (f"{kind}_00000000000000000000aaaa" for kind in ("prep", "train", "eval"))
BATCH, INNER = "batch_00000000000000000000aaaa", "batch_00000000000000000000bbbb"
WAITING = "train_00000000000000000000bbbb"
_ENDED = utc_now()
_BEGUN = _ENDED - timedelta(seconds=200)
_SCHEMA = [{"name": "intent", "labels": ["play", "stop"], "multi": False}]
_METRICS = {
    "intent": {
        "accuracy": 0.8231,
        "macro_f1": 0.8249,
        "multi": False,
        "intervals": {"accuracy": [0.79, 0.85], "macro_f1": [0.8, 0.84]},
    },
    "tags": {
        "accuracy": 0.5,
        "macro_f1": 0.61,
        "micro_f1": 0.72,
        "multi": True,
        "intervals": {"micro_f1": [0.7, 0.74]},
    },
}
_SUMMARY = {
    "rows": 1240,
    "answered": 1237,
    "failed": 3,
    "failures": {"empty_text": 2, "request_refused": 1},
    "requests": 13,
    "tokens": 9120,
    "cost": {"amount": 0.000912, "currency": "USD"},
}


@pytest.fixture
def jobs(run: Run) -> dict[str, str]:
    """One job of each kind that ended, a training that waits, and a batch that an evaluation runs."""
    del run  # has made the database
    ended: dict[str, datetime] = {"created_at": _BEGUN, "finished_at": _ENDED}
    engine = connect("sqlite:///jobs.db")
    with writing(engine) as connection:

        def add(table: type, **values: Any) -> None:
            connection.execute(insert(table).values(**values))

        add(
            ModelRow,
            no=1,
            name="m",
            version=1,
            method="embedding",
            remote_model="mistral-embed",
            label_schema=_SCHEMA,
            promoted=True,
        )
        add(
            DatasetRow,
            id=PREP,
            state="ready",
            name="d",
            version=2,
            spec={},
            label_schema=_SCHEMA,
            splits={"train": 5313, "test": 665},
            labels={"intent": {"train": {"play": 5313}, "test": {"stop": 665}}},
            dropped={"bad_row": 3, "below_min_per_label": 1204},
            **ended,
        )
        common: dict[str, Any] = {"name": "m", "method": "embedding", "dataset_id": PREP, "options": {}}
        add(
            TrainingRow,
            id=TRAIN,
            state="succeeded",
            model_no=1,
            cost={"amount": 0.0056, "currency": "USD", "tokens": 56000},
            **common,
            **ended,
        )
        add(
            TrainingRow,
            id=WAITING,
            state="awaiting_approval",
            created_at=_BEGUN,
            max_cost=0.01,
            estimate={"amount": 0.019, "currency": "USD", "texts": 6642, "tokens": 190000},
            **common,
        )
        batch: dict[str, Any] = {
            "model_no": 1,
            "model_ref": "m",
            "options": {"source": "-", "text": "text"},
            "started_at": _BEGUN,
            **ended,
        }
        add(BatchRow, no=1, id=BATCH, state="completed", rows=20_000, duplicates=1, skipped=4, **batch)
        add(BatchRow, no=2, id=INNER, owner_id=EVAL, state="completed", rows=0, **batch)
        add(
            ChunkRow,
            batch_no=1,
            number=0,
            state="done",
            first_row=0,
            rows=20_000,
            texts=19_999,
            labelled=19_490,
            abstained=500,
            failed=10,
            requests=200,
            tokens=240_000,
        )
        for row in range(9):
            code = "request_refused" if row else "empty_text"
            add(RowErrorRow, batch_no=1, row=row, external_id=str(row), code=code, message="no")
        add(DuplicateRow, batch_no=1, row=12, first_row=0, external_id="12")
        add(
            EvaluationRow,
            id=EVAL,
            state="completed",
            model_no=1,
            model_ref="m@1",
            dataset_id=PREP,
            dataset_ref="d@2",
            split="test",
            metrics=_METRICS,
            summary=_SUMMARY,
            batch_id=INNER,
            **ended,
        )
    engine.dispose()
    return {"LABELMILL_DATABASE_URL": "sqlite:///jobs.db", "LABELMILL_BROKER_URL": NOBODY_REDIS}


ENDINGS = {
    PREP: [
        "ready: dataset d@2",
        "train 5,313, test 665",
        "intent 2",
        "below min per label 1,204, bad row 3",
        "3 min 20 s",
        "labelmill train d --dataset d@2 --wait",
    ],
    TRAIN: [
        "succeeded: m@1 by embedding",
        "0.0056 USD for 56,000 tokens",
        "labelmill evaluate m@1 --dataset NAME --wait",
    ],
    WAITING: [
        "waits for approval",
        "6,642",
        "about 190,000",
        f"costs about 0.019 USD: labelmill approve {WAITING} --wait",
    ],
    BATCH: [
        "completed: m@1",
        "20,000: 19,490 labelled, 500 abstained, 10 failed",
        "request refused 8, empty text 2",
        "4 rows that could not be read",
        "200, 240,000 tokens",
        "about 0.024 USD",
        "100 rows/s",
        f"rows: labelmill results {BATCH} -o labelled.csv",
    ],
    EVAL: [
        "completed: m@1 on d@2 test",
        "accuracy 0.823 [0.790, 0.850], macro F1 0.825 [0.800, 0.840]",
        "micro F1 0.720 [0.700, 0.740]",
        "1,237 of 1,240 answered, 3 failed",
        "empty text 2, request refused 1",
        f"report: labelmill report {EVAL} -o report.html",
    ],
}
CODES = {PREP: 0, TRAIN: 0, WAITING: 4, BATCH: 3, EVAL: 3}


@pytest.mark.parametrize("job_id", ENDINGS)
def test_a_terminal_is_told_how_a_job_ended_and_what_comes_next(jobs: dict[str, str], job_id: str) -> None:
    shown = on_terminal("watch", job_id, columns=200, **jobs)
    assert shown.code == CODES[job_id]
    for words in ENDINGS[job_id]:
        assert words in shown.text
    assert "{" not in shown.text


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_nothing_is_cut_off_on_a_narrow_terminal_and_commands_stay_whole(jobs: dict[str, str], encoding: str) -> None:
    for job_id, command in ((BATCH, f"labelmill results {BATCH} --only failed"), (WAITING, " --wait")):
        shown = on_terminal("watch", job_id, columns=60, encoding=encoding, **jobs)
        words = [word for sentence in ENDINGS[job_id] for word in sentence.split()]
        assert set(words) <= set(shown.text.split())
        assert [line for line in shown.lines if line.endswith(command)]  # a command is never broken into lines
        assert "\\x" not in shown.text


@pytest.mark.parametrize("job_id", ENDINGS)
def test_json_is_printed_where_stdout_is_no_terminal_or_it_was_asked_for(
    jobs: dict[str, str], run: Run, job_id: str
) -> None:
    piped = run("watch", job_id)
    assert piped.code == CODES[job_id]
    document = json.loads(piped.out)
    assert (document["id"], document["waiting_for"] is None) == (job_id, job_id != WAITING)
    shown = on_terminal("watch", job_id, "--json", **jobs)
    assert json.loads(shown.text[shown.text.index('{"id"') :]) == document


def test_rows_that_would_fail_again_are_not_to_be_run_again(jobs: dict[str, str], run: Run) -> None:
    document = json.loads(run("status", BATCH).out)
    assert "labelmill retry" not in str(summary_of(document).steps)
    for failures in ({"request_refused": 8, "remote_unavailable": 2}, {}):
        steps = summary_of(document | {"failures": failures}).steps
        assert ("run them again", f"labelmill retry {BATCH} --wait") in steps
    paused = document | {"state": "paused"}
    assert f"labelmill retry {BATCH}" in str(summary_of(paused).steps)


def test_a_dataset_is_said_to_have_no_rows(jobs: dict[str, str], run: Run) -> None:
    ended = run("results", PREP)
    assert (ended.code, ended.out) == (0, "")
    assert f"{PREP} is a dataset: only batches and evaluations have rows" in ended.err


def test_a_wrong_choice_is_one_plain_sentence(run: Run) -> None:
    assert run("results", BATCH, "--only", "nope").sentence.endswith(": 'nope' is not one of 'failed', 'abstained'.")


def test_a_cap_that_is_spent_already_is_no_cap_for_a_retry(jobs: dict[str, str], run: Run) -> None:
    line = {"job_id": BATCH, "batch_id": BATCH, "model": "mistral-embed", "mode": "realtime", "day": "2026-11-27"}
    tokens = {"requests": 1, "input_tokens": 195_000, "output_tokens": 0, "cached_tokens": 0}
    engine = connect("sqlite:///jobs.db")
    with writing(engine) as connection:
        paid = {"at": utc_now(), "amount": 0.0195, "currency": "USD", "estimated": False}
        connection.execute(insert(LedgerRow).values(line | tokens | paid))
    engine.dispose()
    for cap in ("0.01", "0.0195"):
        ended = run("retry", BATCH, "--max-cost", cap)
        assert ended.code == 2
        assert f"--max-cost {cap} is not enough: {BATCH} has cost 0.0195 USD already" in ended.sentence
    assert json.loads(run("status", BATCH).out)["state"] == "completed"
    assert run("retry", BATCH, "--max-cost", "0.02").code == 0


def test_times_of_a_status_are_said_to_be_utc(jobs: dict[str, str]) -> None:
    shown = on_terminal("status", BATCH, columns=200, **jobs)
    (line,) = (line for line in shown.lines if line.startswith("created_at"))
    assert line.rstrip().endswith(" UTC")


def test_causes_of_failed_rows_count_the_rows_that_repeat_them(jobs: dict[str, str], run: Run) -> None:
    assert json.loads(run("status", BATCH).out)["failures"] == {"request_refused": 8, "empty_text": 2}


def test_the_list_names_what_jobs_are_about_and_hides_inner_batches(jobs: dict[str, str], run: Run) -> None:
    shown = on_terminal("status", columns=200, **jobs).text
    assert INNER not in shown
    (line,) = (line for line in shown.splitlines() if BATCH in line)
    assert "m@1" in line
    assert "20,000/20,000" in line
    assert "0.024 USD" in line
    assert INNER in on_terminal("status", "--all", columns=200, **jobs).text
    listed = json.loads(run("status").out)
    assert {one["id"] for one in listed} == {PREP, TRAIN, WAITING, BATCH, EVAL}
    assert {one["name"] for one in listed} == {"d@2", "m", None, "d@2 test"}


def test_the_list_is_narrowed_and_goes_on_after_a_job(jobs: dict[str, str], run: Run) -> None:
    def ids(*arguments: str) -> list[str]:
        return [one["id"] for one in json.loads(run("status", *arguments).out)]

    everything = ids()
    assert ids("--kind", "training") == [WAITING, TRAIN]
    assert ids("--state", "completed") == [EVAL, BATCH]
    assert ids("--limit", "2") == everything[:2]
    assert ids("--limit", "2", "--after", everything[1]) == everything[2:4]
    assert ids("--after", everything[-1]) == []
    assert run("status", "--after", "batch_unknown").code == 2
    refused = run("status", "--state", "runing")
    assert (refused.code, "did you mean running?" in refused.sentence) == (2, True)
    assert run("status", BATCH, "--kind", "batch").code == 2


@pytest.mark.parametrize(
    "command",
    [
        "prepare data good.jsonl --target intent=intent",
        "train m --dataset d --method prompt",
        "evaluate m --dataset d",
        "classify good.jsonl --model m",
    ],
)
def test_a_submission_names_its_id_first(jobs: dict[str, str], run: Run, command: str) -> None:
    shown = on_terminal(*command.split(), columns=200, **jobs)
    assert shown.code == 0, shown.text
    said = [line for line in shown.lines if "_" in line]
    assert "submitted: " in said[0]
    job_id = said[0].split("submitted: ")[1].split()[0]
    assert f"{job_id} is queued" in shown.text
    assert f"follow it: labelmill watch {job_id}" in shown.text
    assert "submitting" not in said[0].split("submitted: ")[0].rsplit("\x1b[2K", 1)[-1]  # above the bar, not behind it
    again = run(*command.split(), "--json")
    assert again.err.splitlines()[0] == f"submitted: {json.loads(again.out)['id']}"


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(group, TyperGroup) or group.invoke_without_command:
        yield path, group
    if isinstance(group, TyperGroup):
        for name in group.list_commands(None):
            yield from _commands(group.get_command(None, name), (*path, name))


def test_every_command_takes_json() -> None:
    found = dict(_commands(typer.main.get_command(main.build_app())))
    assert len(found) > 25
    lacking = [
        " ".join(path) for path, command in found.items() if not any("--json" in one.opts for one in command.params)
    ]
    assert lacking == []


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("status", list),
        (f"status {BATCH}", dict),
        ("models", list),
        ("models show m@1", dict),
        ("datasets", list),
        ("models promote m@1", dict),
        ("models rollback m", None),
        ("models alias m@1 best", dict),
        ("models alias m@best --remove", None),
        ("models note m@1 good", dict),
        ("models threshold m@1 0.5", None),
        ("models register x ft:classifier:x", dict),
        ("models archive m@1", dict),
        ("models delete m@1", dict),
        ("dead-letters", list),
        ("db upgrade", dict),
        (f"report {BATCH}", dict),
        (f"cancel {WAITING}", dict),
        (f"approve {WAITING}", dict),
        (f"results {BATCH}", None),
        ("rehearse --list", dict),
    ],
)
@pytest.mark.parametrize("flag", [(), ("--json",)])
def test_json_is_one_document(
    jobs: dict[str, str], run: Run, command: str, kind: type | None, flag: tuple[str, ...]
) -> None:
    ended = run(*command.split(), *flag)
    if kind is not None:
        assert ended.code == 0, ended.err
        assert isinstance(json.loads(ended.out), kind)
