"""The cache of vectors: the method of the models that fill it, and its key, the digest of a text."""

from __future__ import annotations

import hashlib

VECTORS = "vectors"  #: The method of the inner models that embed datasets; they make no predictions.


def digest_of(text: str) -> bytes:
    """The key of a text's vector."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
