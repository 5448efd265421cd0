"""Where a command's output goes. Whatever its encoding is, and whoever has closed it: no command ends because of it."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from typing import Any

import orjson

from labelmill.contracts.control_characters import visible_json

#: What was asked for by PYTHONIOENCODING. Python's own choices raise for a character that the encoding lacks.
_NEVER_RAISE = ("backslashreplace", "ignore", "namereplace", "replace", "xmlcharrefreplace")


def prepare_streams() -> None:
    """Write characters that an encoding lacks as escapes. A stream that was closed before the start takes everything
    and keeps nothing, so that no file that is opened later gets its number."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - open to the end
        elif isinstance(stream, io.TextIOWrapper) and stream.errors not in _NEVER_RAISE:
            stream.reconfigure(errors="backslashreplace")


def discard(stream: Any) -> None:
    """From now on what is written to `stream` goes nowhere: its reader has left, or its disk is full."""
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
