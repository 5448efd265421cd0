"""Text that both databases can hold."""

from __future__ import annotations


def storable(text: str) -> str:
    """`text` without what a database refuses: NUL, and lone surrogates, which are not characters."""
    if "\x00" in text:
        text = text.replace("\x00", "")
    return text if text.isascii() else text.encode(errors="replace").decode()
