"""What `labelmill doctor` says about an account at Mistral."""

from __future__ import annotations

import pytest
from memory_batch_jobs import MemoryBatchJobs
from memory_mistral import MemoryMistral

from labelmill.contracts.errors import BillingRequired, LabelmillError, RemoteFailed
from labelmill_worker.mistral.account import check_account


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (None, "; runs batch jobs"),
        (BillingRequired("no billing"), "; runs no batch jobs: the account has no billing for them"),
        (RemoteFailed("no such route"), "not by prompt"),
    ],
)
def test_it_says_whether_batch_jobs_run_as_far_as_that_can_be_told(error: LabelmillError | None, words: str) -> None:
    mistral = MemoryMistral()
    mistral.models["mistral-embed"] = False

    def refuse(name: str) -> None:
        if name == "check_billing" and error is not None:
            raise error

    mistral.before_call = refuse
    check = check_account(mistral, MemoryBatchJobs(mistral))
    assert check["status"] == "ok"
    assert check["summary"].endswith(words)
