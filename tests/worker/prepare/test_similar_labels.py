"""Labels that look alike and count as different ones."""

from __future__ import annotations

import pytest

from labelmill_worker.prepare.similar_labels import similar_labels_warning


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        (["Billing", "billing", "login"], "'Billing' and 'billing'"),
        (["caf\u00e9", "cafe\u0301"], r"'caf\xe9' and 'cafe\u0301'"),
        (["refund", "re\u200bfund", "\ufeffrefund"], r"'refund' and 're\u200bfund' and '\ufeffrefund'"),
        (["a b", "a\u00a0b", "a  b"], r"'a b' and 'a\xa0b'"),
        (["STRASSE", "stra\u00dfe"], "'STRASSE' and 'stra\u00dfe'"),
        (["\u2764", "\u2764\ufe0f"], r"'\u2764' and '\u2764\ufe0f'"),
    ],
)
def test_labels_that_look_alike_are_named_so_that_the_difference_is_seen(labels: list[str], named: str) -> None:
    warning = similar_labels_warning("topic", labels)
    assert warning is not None
    assert named in warning
    assert "'login'" not in warning


@pytest.mark.parametrize("labels", [[], ["a", "b"], ["cafe", "caf\u00e9"], ["x2", "x\u00b2"], ["a-b", "a b"]])
def test_labels_that_look_different_are_not_warned_about(labels: list[str]) -> None:
    assert similar_labels_warning("topic", labels) is None


def test_of_many_similar_labels_a_few_are_named() -> None:
    labels = [label for number in range(400) for label in (f"label {number}", f"LABEL {number}", f"Label {number}")]
    labels += ["label 0" + "\u200b" * number for number in range(1, 20)]
    warning = similar_labels_warning("topic", labels) or ""
    assert "and 395 more such groups" in warning
    assert len(warning) < 800
