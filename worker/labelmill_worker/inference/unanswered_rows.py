"""Which rows of a chunk are sent: those without an answer, of each text the first. Pure.

A text is sent as it was submitted. Vectors are kept under the digest of what was sent, and found by that of the
dataset's text: whatever changes texts here has to change them there too (`train/embedding.py`).
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

from labelmill.contracts.errors import LabelmillError
from labelmill_worker.inference.outcomes import RowFailed
from labelmill_worker.store.chunks import Claim


class EmptyText(LabelmillError):
    """A row without text: nothing was sent for it."""

    code = "empty_text"


class RowsToSend(NamedTuple):
    """Rows with their texts."""

    rows: Sequence[int]
    texts: Sequence[str]

    def without(self, indices: Container[int]) -> RowsToSend:
        """All but those at `indices`."""
        kept = [index for index in range(len(self.rows)) if index not in indices]
        return RowsToSend([self.rows[index] for index in kept], [self.texts[index] for index in kept])


def unanswered_rows(claim: Claim) -> tuple[RowsToSend, list[RowFailed]]:
    """The rows still to send, and those that fail unsent because they are blank."""
    held = claim.input
    if not held.repeats and not claim.answered and all(held.texts) and not any(map(str.isspace, held.texts)):
        return RowsToSend(range(claim.first_row, claim.first_row + len(held.texts)), held.texts), []
    rows: list[int] = []
    texts: list[str] = []
    blank: list[RowFailed] = []
    for row, text in enumerate(claim.input.texts, claim.first_row):
        if row - claim.first_row in claim.input.repeats or row in claim.answered:
            continue
        if not text or text.isspace():
            blank.append(RowFailed(row, EmptyText("the text is empty")))
            continue
        rows.append(row)
        texts.append(text)
    return RowsToSend(rows, texts), blank
