"""What must hold, checked from outside: SQL against the input, what Mistral was asked, what is left in Redis."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from answers import REFUSED_WORD, TRUTH
from money import money
from pipeline import Pipeline
from queries import query
from rig import CONCURRENCY, Rig
from trained import inner_truth, pipeline_findings
from workload import Work

_QUEUES = [f"{queue}{step}" for queue in ("prepare", "train", "classify") for step in ("", "\x06\x163", "\x06\x166")]
_FULL = ("disk is full", "File too large", "No space left")
_DOOM = ("Mistral ended the job as failed", "cancelled at Mistral", "Mistral no longer knows")
_GOOD = ("ready", "succeeded", "completed")


def findings(rig: Rig, works: Sequence[Work]) -> list[str]:
    """Every broken promise, in words. Everything must have ended."""
    found: list[str] = []
    for work in works:
        for job_id in work.jobs:
            found += _job(rig, job_id)
        for batch_id, rows in work.truth.items():
            found += _batch(rig, batch_id, rows, work.targets)
        if isinstance(work, Pipeline):
            found += pipeline_findings(rig, work)
            for batch_id, rows in inner_truth(rig, work).items():
                found += _batch(rig, batch_id, rows, work.targets)
    return [*found, *money(rig, works), *_chunks(rig), *_files(rig)]


def _job(rig: Rig, job_id: str) -> list[str]:
    status = rig.status(job_id)
    found = []
    reasons = (*_FULL, *(_DOOM if rig.doomed else ()))  # a full disk is a reason to end, and so is a job that failed
    explained = any(words in (status["error"] or "") for words in reasons)
    if status["state"] not in _GOOD and not explained:
        found.append(f"{job_id} is {status['state']}: {status['error']}")
    unforeseen = query(rig, "SELECT message FROM events WHERE job_id = ? AND message LIKE ?", job_id, "unexpected%")
    if unforeseen:
        found.append(f"{job_id}: {len(unforeseen)} unforeseen faults, such as {unforeseen[0][0]!r}")
    return found


def _batch(rig: Rig, batch_id: str, rows: Sequence[tuple[str, str]], targets: Sequence[str]) -> list[str]:
    counted = rig.status(batch_id)
    if counted["state"] != "completed":  # its job says why
        return []
    answers = [
        (row, external_id, target, label if labels is None else tuple(sorted(orjson.loads(labels))))
        for row, external_id, target, label, labels in query(
            rig, "SELECT row, external_id, target, label, labels FROM predictions WHERE batch_id = ?", batch_id
        )
    ]
    errors = query(rig, "SELECT row, external_id, code FROM row_errors WHERE batch_id = ?", batch_id)
    expected_answers, expected_errors = set(), set()
    for number, (external_id, content) in enumerate(rows):
        if not content.strip():
            expected_errors.add((number, external_id, "empty_text"))
        elif REFUSED_WORD in content:
            expected_errors.add((number, external_id, "request_refused"))
        else:
            for target in targets:
                truth = TRUTH[target](content)
                answer = truth if isinstance(truth, str) else tuple(sorted(truth))
                expected_answers.add((number, external_id, target, answer))
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
    sums, answered = counted["rows"], len(answers) // len(targets)
    if (sums["labelled"], sums["failed"], sums["submitted"]) != (answered, len(errors), len(rows)):
        found.append(f"{batch_id}: status says {sums}, SQL holds {answered} answers and {len(errors)} errors")
    return found


_UNEVEN = (
    "SELECT b.id, b.rows, sum(c.rows), sum(c.labelled + c.abstained + c.failed), count(i.number), count(*)"
    " FROM batches b JOIN chunks c ON c.batch_no = b.no"
    " LEFT JOIN chunk_inputs i ON i.batch_no = c.batch_no AND i.number = c.number"
    " WHERE b.state = 'completed' GROUP BY b.id, b.rows"
    " HAVING sum(c.rows) <> b.rows OR sum(c.labelled + c.abstained + c.failed) <> b.rows OR count(i.number) <> count(*)"
)


def _chunks(rig: Rig) -> list[str]:
    """Of every completed batch, inner batches included: its chunks hold all of its rows, each counted once."""
    uneven = query(rig, _UNEVEN)
    undone = query(
        rig,
        "SELECT b.id, c.number, c.state FROM chunks c JOIN batches b ON b.no = c.batch_no"
        " WHERE b.state = 'completed' AND c.state IN ('pending', 'claimed')",
    )
    return [f"a completed batch whose chunks do not add up: {row}" for row in uneven] + [
        f"a completed batch with open chunks: {row}" for row in undone[:3]
    ]


def _files(rig: Rig) -> list[str]:
    parts = [path.name for folder in ("datasets", "models") for path in (rig.data / folder).glob("*.part")]
    return [f"left in the data folder: {', '.join(parts)}"] if parts else []


def open_chunks(rig: Rig, batch_id: str) -> str:
    """What a batch that does not end waits for."""
    chunks = query(
        rig,
        "SELECT number, c.state, attempts, sent_at, lease_until, texts, labelled, c.requests FROM chunks c"
        " JOIN batches b ON b.no = c.batch_no WHERE b.id = ? AND c.state <> 'done' ORDER BY number",
        batch_id,
    )
    return "; ".join(map(str, chunks)) or "every chunk is done"


def left_in_redis(rig: Rig, deaths: int) -> list[str]:
    """Messages that no worker takes. A dead worker's stay among the unacknowledged ones until Redis redelivers them."""
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
