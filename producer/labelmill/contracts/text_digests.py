"""The key of a text in the cache of vectors."""

from __future__ import annotations

import hashlib


def digest_of(text: str) -> bytes:
    """The key of a text's vector."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
