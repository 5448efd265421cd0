"""A command's output streams. No command fails because of their encoding, or because a reader has closed them."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from typing import Any

import orjson

from labelmill.contracts.control_characters import visible_json

#: Error handlers set by PYTHONIOENCODING. Python's defaults raise for a character that the encoding lacks.
_NEVER_RAISE = ("backslashreplace", "ignore", "namereplace", "replace", "xmlcharrefreplace")


def prepare_streams() -> None:
    """Escape characters that an encoding lacks. A stream that was closed before the start is replaced by one that
    discards everything, so that no file opened later gets its file descriptor."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - open to the end
        elif isinstance(stream, io.TextIOWrapper) and stream.errors not in _NEVER_RAISE:
            stream.reconfigure(errors="backslashreplace")


def discard(stream: Any) -> None:
    """Discard what is written to `stream` from now on: its reader has closed it, or its disk is full."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    finally:
        os.close(nowhere)


def write_json(document: Any) -> None:
    """One JSON document on stdout. A reader that has left does not change how the command ends. Raises OSError, such as
    for a full disk."""
    text = visible_json(orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS).decode())
    if not _is_utf8(sys.stdout.encoding):
        text = json.dumps(json.loads(text))  # with JSON's own escapes; other ones would make it unreadable
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)


def _is_utf8(encoding: str | None) -> bool:
    return encoding is not None and codecs.lookup(encoding).name == "utf-8"
