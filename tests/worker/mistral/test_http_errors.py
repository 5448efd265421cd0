"""What an HTTP answer of Mistral's means, and which of its words a person gets to read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from labelmill.contracts.errors import (
    BillingRequired,
    CredentialsRefused,
    LabelmillError,
    RateLimited,
    RemoteFailed,
    RemoteUnavailable,
    RequestRefused,
)
from labelmill_worker.mistral.http_errors import error_for_status, retry_after_s

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestRefused),
        (401, CredentialsRefused),
        (402, BillingRequired),
        (403, CredentialsRefused),
        (404, RemoteFailed),
        (408, RemoteUnavailable),
        (409, RemoteUnavailable),
        (410, RemoteFailed),
        (413, RequestRefused),
        (422, RequestRefused),
        (425, RemoteUnavailable),
        (429, RateLimited),
        (500, RemoteUnavailable),
        (502, RemoteUnavailable),
        (503, RemoteUnavailable),
        (529, RemoteUnavailable),
    ],
)
def test_each_status_is_one_kind_of_error(status: int, kind: type[LabelmillError]) -> None:
    assert type(error_for_status(status, "")) is kind


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"message": "Input too long"}', ": Input too long"),
        ('{"detail": "Unauthorized"}', ": Unauthorized"),
        ('{"detail": [{"loc": ["body", "input"], "msg": "field required"}]}', ": body.input: field required"),
        ('{"error": {"message": "deep"}}', ": deep"),
        ("plain words", ": plain words"),
        ("  <html><body>502 Bad Gateway</body></html>", ""),
        ("{}", ""),
        ("", ""),
    ],
)
def test_a_person_reads_mistrals_sentence_and_no_page_of_a_proxy(body: str, words: str) -> None:
    assert error_for_status(422, body).message == f"Mistral refused the request (status 422){words}"


def test_long_words_are_cut_and_no_part_of_a_key_is_left() -> None:
    key = "a-key-that-must-not-leak"
    said = error_for_status(400, "x" * 490 + key + "y" * 500, secrets=[key]).message
    assert len(said) < 600
    assert "a-key" not in said


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("nan", 0.0),
        ("inf", 600.0),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 12:00:30 -0000", 30.0),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0.0),
        ("Wed, 25 Nov 2026 12:00:00 GMT", 600.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, wait_s: float | None) -> None:
    assert retry_after_s(header, now=NOW) == wait_s
