"""What the lines of a batch job of which none was answered tell of the batch as a whole."""

from __future__ import annotations

import pytest

from labelmill.contracts.errors import CredentialsRefused, LabelmillError, RateLimited, RemoteFailed, RequestRefused
from labelmill_worker.inference.batch_mode.verdicts import LineFailure, refusal_of_all
from labelmill_worker.inference.bisection import REFUSED_TEXTS

REFUSED = RequestRefused("no such schema", 422)
LIMITED = RateLimited("slow down")


def _told(errors: list[LabelmillError], lists: int = 0) -> LabelmillError | None:
    return refusal_of_all([LineFailure(error) for error in errors], lists=lists)


@pytest.mark.parametrize("error", [REFUSED, RemoteFailed("no such model"), CredentialsRefused("no")])
def test_lines_that_failed_for_now_do_not_hide_that_all_others_are_refused_alike(error: LabelmillError) -> None:
    assert _told([error, error]) is error
    assert _told([error] * REFUSED_TEXTS + [LIMITED]) is error
    assert _told([error] * (REFUSED_TEXTS - 1) + [LIMITED]) is None
    assert _told([error] * REFUSED_TEXTS + [LIMITED, RequestRefused("too long", 400)]) is None


def test_a_single_text_and_lists_of_texts_that_are_refused_say_nothing_of_the_batch() -> None:
    assert _told([]) is None
    assert _told([LIMITED, LIMITED]) is None
    assert _told([REFUSED]) is None
    assert _told([REFUSED] * 100, lists=100) is None
