"""Vectors of texts that are kept: the method of the models that make them, and what a vector is found by."""

from __future__ import annotations

import hashlib

VECTORS = "vectors"  #: The method of the inner models that embed datasets; they make no predictions.


def digest_of(text: str) -> bytes:
    """What a text's vector is found by."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
