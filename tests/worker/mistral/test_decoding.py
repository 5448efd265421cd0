"""From answers about batch jobs to what the port tells of them."""

from __future__ import annotations

from types import SimpleNamespace

from labelmill_worker.mistral.decoding import batch_of


def test_what_mistral_says_of_a_batch_job_holds_no_key() -> None:
    fields = {"id": "job", "status": "FAILED", "endpoint": "/v1/embeddings", "created_at": 1, "metadata": None}
    counts = dict.fromkeys(("total_requests", "succeeded_requests", "failed_requests"), 1)
    answer = SimpleNamespace(**fields, **counts, errors=[SimpleNamespace(message="refused: my-key")])
    assert batch_of(answer, ["my-key"]).errors == ("refused: [secret]",)
