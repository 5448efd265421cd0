"""How large the chunks of a batch are. Pure."""

from __future__ import annotations

from dataclasses import dataclass

#: Maximum number of distinct texts in a chunk. Large enough that a chunk's own statements cost little per row.
CHUNK_TEXTS = 10_000
#: The same where each text is a request: its prompt may be a hundred times as long, and is asked at a slower pace.
PROMPTED_TEXTS = 4_000
#: The first chunks are smaller: a batch of a thousand rows occupies a whole fleet, or gets its share of a busy one.
#: Multiples of this, so that all requests of a chunk are full.
_FIRST_TEXTS = 500
#: So many texts a process sends at once, a hundred in a request: to cut them into smaller chunks makes nothing faster.
_SENT_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """How many distinct texts a chunk may have: half as many as there are rows before it up to `sent_at_once`, then a
    quarter, so that few batches end with one worker at work; never more than `max_texts`."""

    max_texts: int = CHUNK_TEXTS
    sent_at_once: int = _SENT_AT_ONCE

    @classmethod
    def of(cls, method: str) -> ChunkSizes:
        """For a model that was made by this method. A prompt may take a request for each text."""
        return cls(PROMPTED_TEXTS, _FIRST_TEXTS) if method == "prompt" else cls(CHUNK_TEXTS)

    def after(self, rows: int) -> int:
        """Those of a chunk that so many rows of its batch come before."""
        grown = max(_FIRST_TEXTS, min(rows // 2, self.sent_at_once), rows // 4)
        return min(self.max_texts, grown // _FIRST_TEXTS * _FIRST_TEXTS)
