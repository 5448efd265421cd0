"""How often a wait asks."""

from __future__ import annotations

from labelmill import Client
from labelmill.services.jobs.waiting import waiting_for_jobs


def test_a_wait_asks_soon_at_first_and_ever_more_rarely(client: Client) -> None:
    batch = client.classify(["a"], "ft:classifier:x")
    waited_s, pauses = 0.0, []
    for pause_s in waiting_for_jobs(client.context, [batch.id]):
        assert pause_s <= 0.021 + waited_s / 10  # what the wait may add to a job's own time
        pauses.append(pause_s)
        waited_s += pause_s
        if waited_s > 60:
            break
    assert len(pauses) < 100
    assert pauses[-1] == 1.0
