"""What Mistral was paid for, against what was asked of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pipeline import Pipeline
from queries import query
from rig import MAX_IN_FLIGHT, PER_REQUEST, Rig
from stand_in import COMPLETIONS, EMBEDDINGS
from workload import Work

_EXPIRED = "SELECT count(*) FROM events WHERE message LIKE 'its worker''s lease%' AND job_id = ?"


def paid_twice(rig: Rig, works: Sequence[Work]) -> Counter[str]:
    """By kind of call: texts that were paid for oftener than they were asked."""
    expected = _expected(works)
    again = {text for work in works if isinstance(work, Pipeline) for text in work.embedded_to_ask()}
    found: Counter[str] = Counter()
    for path, billed in rig.mistral.counts.billed.items():
        known = expected.get(path, Counter())
        for text, times in billed.items():
            if path == EMBEDDINGS and text in again:
                continue
            if (more := times - max(1, known[text])) > 0:
                found[path] += more
    return found


def money(rig: Rig, works: Sequence[Work]) -> list[str]:
    """Every promise about money that was broken."""
    counts, found = rig.mistral.counts, []
    twice = paid_twice(rig, works)
    # a worker that a busy machine froze past its lease is a fault as well: each such lease stands in `events`
    expired = sum(query(rig, _EXPIRED, batch)[0][0] for work in works for batch in batches_of(rig, work))
    if expired:
        rig.notes.append(f"{expired} leases of chunks ran out")
    # results of batch jobs wait at Mistral for the next worker
    in_batch_mode = all(work.mode == "batch" for work in works)
    slots = 0 if in_batch_mode else max(rig.lost_slots, expired * MAX_IN_FLIGHT)
    needed = sum(max(0, twice[path] - counts.spoilt[path]) / _texts_of_a_request(path) for path in twice)
    if needed > slots:
        found.append(
            f"paid twice: {dict(twice)} texts, of which {dict(counts.spoilt)} answers were spoilt: {needed:g} requests,"
            f" where {slots} may have been under way"
        )
    made = (
        ("created", rig.mistral.jobs.created),
        ("started", rig.mistral.jobs.started),
        ("created", rig.mistral.batches.created),
    )
    for what, jobs in made:
        found += [f"{times} jobs were {what} for {name}" for name, times in jobs.items() if times > 1]
    expected, again = (
        _expected(works),
        {text for work in works if isinstance(work, Pipeline) for text in work.embedded_to_ask()},
    )
    for path, billed in counts.billed.items():
        known = set(expected.get(path, ())) | (again if path == EMBEDDINGS else set())
        if unasked := [text for text in billed if text not in known]:
            found.append(f"{len(unasked)} texts were sent to {path} that were not submitted, such as {unasked[0]!r}")
    return found


def batches_of(rig: Rig, work: Work) -> list[str]:
    """Every batch of a work, also those that a training or an evaluation opened for itself."""
    inner = [
        row[0] for job in work.jobs for row in query(rig, "SELECT job_id FROM events WHERE message = ?", f"for {job}")
    ]
    return [*work.truth, *inner]


def _expected(works: Sequence[Work]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for work in works:
        for path, texts in work.expected().items():
            found.setdefault(path, Counter()).update(texts)
    return found


def _texts_of_a_request(path: str) -> int:
    return 1 if path == COMPLETIONS else PER_REQUEST
