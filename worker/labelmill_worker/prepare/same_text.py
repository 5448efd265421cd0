"""When two texts are the same: but for case, spaces, punctuation and how Unicode writes their characters. Pure.

Symbols are part of a text: `C++` is not `C#`, and texts that differ in an emoji, or in `:)` and `:(`, are not the same.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray

Words64 = NDArray[np.uint64]

_MEANINGFUL = frozenset("#%&@§‰")  #: Punctuation by Unicode, but part of names and quantities.
_QUOTES = frozenset("`\N{ACUTE ACCENT}")  #: Symbols by Unicode, but written for quotation marks and apostrophes.
_PUNCTUATION = frozenset(("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Zs", "Zl", "Zp", "Cc"))
_LAST_PUNCTUATION = 0x1FFFF  #: Beyond there is none.
_FACE = re.compile(r"(?<!\S)[:;=]'?[-o^]?([()])")
_FACES = {")": " \N{WHITE SMILING FACE} ", "(": " \N{WHITE FROWNING FACE} "}


def plain(text: str) -> str:
    """A text without case, punctuation and the width of spaces; a text of nothing else stays as it is."""
    if text.isascii():
        folded, ignored = text.casefold(), _ignored_of_ascii()
    else:
        composed = _unseen().sub("", unicodedata.normalize("NFC", text))
        folded, ignored = unicodedata.normalize("NFC", composed.casefold()), _ignored()
    if ":" in folded or ";" in folded or "=" in folded:
        folded = _FACE.sub(lambda found: _FACES[found[1]], folded)
    return ignored.sub(" ", folded).strip() or text.strip()


@cache
def _ignored_of_ascii() -> re.Pattern[str]:
    """The same of a small alphabet, which is searched faster."""
    return _any_of(filter(_ignored().match, map(chr, range(0x80))))


@cache
def _ignored() -> re.Pattern[str]:
    """One or more characters that stand between words and are no part of them."""
    return _any_of(
        sign
        for sign in map(chr, range(_LAST_PUNCTUATION))
        if sign in _QUOTES
        or (unicodedata.category(sign) in _PUNCTUATION and unicodedata.normalize("NFKC", sign) not in _MEANINGFUL)
    )


@cache
def _unseen() -> re.Pattern[str]:
    """Format characters and variation selectors: an emoji is the same with and without them."""
    selectors = map(chr, range(0xFE00, 0xFE10))
    formats = (sign for sign in map(chr, range(_LAST_PUNCTUATION)) if unicodedata.category(sign) == "Cf")
    return _any_of((*formats, *selectors))


def _any_of(signs: Iterable[str]) -> re.Pattern[str]:
    return re.compile(f"[{re.escape(''.join(signs))}]+")


def digests_of(texts: Iterable[str]) -> Words64:
    """64 bits for each text, the same for texts that are the same."""
    raw = b"".join(hashlib.blake2b(plain(text).encode("utf-8", "replace"), digest_size=8).digest() for text in texts)
    return np.frombuffer(raw, np.uint64)
