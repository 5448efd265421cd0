"""Writes `utterances.jsonl`: `python -m labelmill_ops.sample.generate`. The same code writes the same bytes."""

import json
import random
import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

from labelmill_ops.sample import SAMPLE_PATH
from labelmill_ops.sample.fillers import FILLERS
from labelmill_ops.sample.phrases import AMBIGUOUS, PATTERNS, SIZES

_SEED = 20260401
_AMBIGUOUS_SHARE = 0.14  # of an intent's utterances, if it shares patterns with another
_OPENING_SHARE = 0.3
_CLOSING_SHARE = 0.15
_TYPO_SHARE = 0.08
_LEFT_OUT_SHARE = 0.1  # loses a word, as speech recognition does
_SHORTEST_TO_DAMAGE = 4

Item = TypeVar("Item")


class _Speaker:
    """Says sentences at random. Only `Random.random` is drawn from: its sequence is promised across Python versions."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def chance(self, share: float) -> bool:
        return self._random.random() < share

    def choice(self, items: Sequence[Item]) -> Item:
        return items[int(self._random.random() * len(items))]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        return [item for _, item in sorted(((self._random.random(), item) for item in items), key=lambda pair: pair[0])]

    def say(self, pattern: str) -> str:
        """Fill a pattern's slots, then phrase it as people do: openings, closings, slips."""
        question = pattern.endswith("?")
        text = re.sub(r"\{(\w+)\}", lambda slot: self.choice(FILLERS[slot[1]]), pattern.rstrip("?"))
        if question:
            text = self.choice((text, text.replace("what is", "what's"), text.replace("what is", "whats")))
        if self.chance(_LEFT_OUT_SHARE):
            text = self._without_a_word(text)
        if self.chance(_OPENING_SHARE):
            text = f"{self.choice(FILLERS['asker' if question else 'opener'])} {text}"
        if self.chance(_CLOSING_SHARE):
            text = f"{text} {self.choice(FILLERS['closer'])}"
        return self._with_a_typo(text) if self.chance(_TYPO_SHARE) else text

    def _without_a_word(self, text: str) -> str:
        words = text.split()
        if len(words) >= _SHORTEST_TO_DAMAGE:
            del words[int(self._random.random() * len(words))]
        return " ".join(words)

    def _with_a_typo(self, text: str) -> str:
        words = text.split()
        number = int(self._random.random() * len(words))
        word = words[number]
        if len(word) >= _SHORTEST_TO_DAMAGE:
            at = 1 + int(self._random.random() * (len(word) - 2))
            swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
            words[number] = self.choice((swapped, word[:at] + word[at + 1 :]))
        return " ".join(words)


def utterances() -> Iterator[dict[str, str]]:
    """Yield the rows of the sample in their order; no two have the same text."""
    speaker = _Speaker(_SEED)
    taken: set[str] = set()
    rows: list[tuple[str, str]] = []
    for intent, size in SIZES.items():
        shared = [pattern for intents, patterns in AMBIGUOUS if intent in intents for pattern in patterns]
        missing = size
        while missing:
            ambiguous = bool(shared) and speaker.chance(_AMBIGUOUS_SHARE)
            text = speaker.say(speaker.choice(shared if ambiguous else PATTERNS[intent]))
            if text not in taken:
                taken.add(text)
                rows.append((text, intent))
                missing -= 1
    for number, (text, intent) in enumerate(speaker.shuffled(rows), start=1):
        yield {"id": f"u{number:04d}", "text": text, "intent": intent, "lang": "en"}


def as_jsonl() -> str:
    """Return the whole sample file."""
    return "".join(json.dumps(row) + "\n" for row in utterances())


if __name__ == "__main__":
    SAMPLE_PATH.write_text(as_jsonl(), encoding="utf-8")
