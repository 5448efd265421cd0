"""Cached beginnings of prompts: requests with the same `prompt_cache_key` that begin alike cost less."""

from __future__ import annotations

from collections import OrderedDict
from itertools import takewhile

BLOCK_TOKENS = 64  #: Whole blocks are cached, one at least.
_CHARS_PER_TOKEN = 4
_MAX_KEYS = 1000


class PrefixCache:
    """The latest prompt of each model and key."""

    def __init__(self) -> None:
        """Start empty."""
        self._latest: OrderedDict[tuple[str, str], str] = OrderedDict()

    def cached_tokens(self, model: str, key: str | None, prompt: str) -> int:
        """Tokens of a prompt that are cached; the prompt takes the place of the one before."""
        if key is None:
            return 0
        before = self._latest.pop((model, key), "")
        self._latest[model, key] = prompt
        if len(self._latest) > _MAX_KEYS:
            self._latest.popitem(last=False)
        alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, prompt, strict=False)))
        return alike // _CHARS_PER_TOKEN // BLOCK_TOKENS * BLOCK_TOKENS
