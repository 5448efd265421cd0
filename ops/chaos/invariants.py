"""What must hold, looked at from outside: SQL against the input, what Mistral was asked, what is left in Redis."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import psycopg
from rig import CONCURRENCY, MAX_IN_FLIGHT, PER_REQUEST, Rig
from stand_in import REFUSED_WORD, label_of
from workload import Classify, Pipeline, Work

_QUEUES = [f"{queue}{step}" for queue in ("prepare", "train", "classify") for step in ("", "\x06\x163", "\x06\x166")]
_FULL = ("disk is full", "File too large")
_EXPIRED = "SELECT count(*) FROM events WHERE job_id = ? AND message LIKE 'its worker''s lease%'"


def query(rig: Rig, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of a statement with `?` for values, through the driver alone."""
    if rig.postgres is not None:
        with psycopg.connect(str(rig.client.settings.database_url)) as connection:
            return connection.execute(statement.replace("%", "%%").replace("?", "%s").encode(), values).fetchall()
    lite = sqlite3.connect(f"file:{rig.data}/labelmill.db?mode=ro", uri=True, timeout=30)
    try:
        return lite.execute(statement, values).fetchall()
    finally:
        lite.close()


def findings(rig: Rig, works: Sequence[Work]) -> list[str]:
    """Every broken promise, in words. Everything must have ended."""
    found: list[str] = []
    for work in works:
        for job_id in work.jobs:
            found += _job(rig, job_id)
        for batch_id, rows in work.truth.items():
            found += _batch(rig, batch_id, rows)
        if isinstance(work, Pipeline):
            found += _pipeline(rig, work)
    return [*found, *_money(rig, works), *_files(rig)]


def _job(rig: Rig, job_id: str) -> list[str]:
    status = rig.client.status(job_id)
    found = []
    explained = any(words in (status["error"] or "") for words in _FULL)  # a full disk is a reason to end
    if status["state"] not in ("ready", "succeeded", "completed") and not explained:
        found.append(f"{job_id} is {status['state']}: {status['error']}")
    unforeseen = query(rig, "SELECT message FROM events WHERE job_id = ? AND message LIKE ?", job_id, "unexpected%")
    if unforeseen:
        found.append(f"{job_id}: {len(unforeseen)} faults nobody foresaw, such as {unforeseen[0][0]!r}")
    return found


def _batch(rig: Rig, batch_id: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    answers = query(rig, "SELECT row, external_id, label FROM predictions WHERE batch_id = ?", batch_id)
    errors = query(rig, "SELECT row, external_id, code FROM row_errors WHERE batch_id = ?", batch_id)
    expected_answers, expected_errors = set(), set()
    for number, (external_id, content) in enumerate(rows):
        if not content.strip():
            expected_errors.add((number, external_id, "empty_text"))
        elif REFUSED_WORD in content:
            expected_errors.add((number, external_id, "request_refused"))
        else:
            expected_answers.add((number, external_id, label_of(content)))
    found = []
    if len(answers) != len(set(answers)) or len(errors) != len(set(errors)):
        found.append(f"{batch_id}: rows stand twice")
    for what, there, expected in (
        ("answers", set(answers), expected_answers),
        ("errors", set(errors), expected_errors),
    ):
        if missing := expected - there:
            found.append(f"{batch_id}: {len(missing)} {what} are missing, such as {min(missing)}")
        if extra := there - expected:
            found.append(f"{batch_id}: {len(extra)} {what} too many, such as {min(extra)}")
    counted = rig.client.status(batch_id)["rows"]
    if (counted["labelled"], counted["failed"], counted["submitted"]) != (len(answers), len(errors), len(rows)):
        found.append(f"{batch_id}: status says {counted}, SQL holds {len(answers)} answers and {len(errors)} errors")
    return found


def _pipeline(rig: Rig, work: Pipeline) -> list[str]:
    if len(work.jobs) < 3:
        return []
    found = []
    dataset = rig.client.status(work.jobs[0])
    if sum(dataset["splits"].values()) != work.rows:
        found.append(f"{work.name}: {dataset['splits']} of {work.rows} rows")
    for split, path in dataset["files"].items():
        lines = Path(path).read_bytes().splitlines()
        wrong = [line for line in map(orjson.loads, lines) if line["labels"] != {"intent": label_of(line["text"])}]
        if len(lines) != dataset["splits"][split] or wrong:
            found.append(f"{path}: {len(lines)} lines, {len(wrong)} of them wrong")
    metrics = rig.client.status(work.jobs[2])["metrics"]
    if metrics and metrics["intent"]["accuracy"] != 1.0:
        found.append(f"{work.name}: the evaluation found an accuracy of {metrics['intent']['accuracy']}")
    versions = query(rig, "SELECT count(*) FROM models WHERE name = ?", work.name)[0][0]
    if versions != 1:
        found.append(f"{work.name}: {versions} model versions of one training")
    return found


def _money(rig: Rig, works: Sequence[Work]) -> list[str]:
    counts = rig.mistral.counts
    found = []
    twice = sum(times - 1 for times in counts.billed.values() if times > 1)
    # on a machine that is too busy, a worker may be frozen past its lease without any fault of ours
    expired = sum(
        query(rig, _EXPIRED, batch)[0][0]
        for work in works for batch in work.truth
    )  # fmt: skip
    if twice > counts.spoilt + max(rig.allowed_twice, expired * MAX_IN_FLIGHT * PER_REQUEST):
        found.append(
            f"{twice} texts were paid twice; {counts.spoilt} answers were spoilt, {rig.allowed_twice} may have been in"
            " flight"
        )
    for what, jobs in (("created", counts.jobs_created), ("started", counts.jobs_started)):
        found += [f"{times} jobs were {what} for {name}" for name, times in jobs.items() if times > 1]
    asked = {content for work in works for rows in work.truth.values() for _, content in rows}
    asked |= {content for work in works if isinstance(work, Classify) for _, content in work.rows}
    if unasked := [one for one in counts.billed if one not in asked and " say " not in one]:
        found.append(f"{len(unasked)} texts were sent that nobody submitted, such as {unasked[0]!r}")
    return found


def _files(rig: Rig) -> list[str]:
    folder = rig.data / "datasets"
    parts = [path.name for path in folder.glob("*.part")] if folder.exists() else []
    return [f"left in the data folder: {', '.join(parts)}"] if parts else []


def open_chunks(rig: Rig, batch_id: str) -> str:
    """What a batch that does not end waits for."""
    chunks = query(
        rig, "SELECT number, c.state, attempts, sent_at, lease_until, texts, labelled, c.requests FROM chunks c"
        " JOIN batches b ON b.no = c.batch_no WHERE b.id = ? AND c.state <> 'done' ORDER BY number", batch_id,
    )  # fmt: skip
    return "; ".join(map(str, chunks)) or "every chunk is done"


def left_in_redis(rig: Rig, deaths: int) -> list[str]:
    """Messages that nobody takes. What a dead worker held stays among the unacknowledged until Redis gives it back."""
    with rig.admin() as client:
        waiting = {name: count for name in _QUEUES if (count := int(client.llen(name)))}
        held = int(client.hlen("unacked"))
        held_index = int(client.zcard("unacked_index"))
    found = []
    if sum(waiting.values()) > 2:
        found.append(f"messages left on Redis: {waiting}")
    if max(held, held_index) > CONCURRENCY * (deaths + 1) * 2:
        found.append(f"{held} messages ({held_index} by index) stay unacknowledged after {deaths} deaths")
    return found
